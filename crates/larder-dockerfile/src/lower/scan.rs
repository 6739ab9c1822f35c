//! What a list of the result's contents covers beside the result: the build context, and stages
//! whose files are not in it.

use super::Lowering;
use super::config::SCAN_ARGS;
use super::dag::NodeRef;
use crate::expand::Variables;
use crate::golang;

impl Lowering<'_> {
    /// Returns what is asked for by the build or by ARGs: names and nodes.
    pub(super) fn scanned(&mut self) -> Vec<(String, NodeRef)> {
        let [context_arg, stage_arg] = SCAN_ARGS;
        let target = self.stages.target;
        let mut scanned = Vec::new();
        if self.is_scanned(target, context_arg) {
            self.locals.use_context_path("/");
            let context = self.locals.context(&mut self.dag);
            scanned.push(("context".to_owned(), context));
        }
        let reachable = self.stages.reachable();
        for id in (0..reachable.len()).filter(|&id| reachable[id] && id != target) {
            let state = &self.stages.states[id];
            if let (true, Some(output)) = (state.is_stage, state.output)
                && self.is_scanned(id, stage_arg)
            {
                scanned.push((state.name.clone(), output));
            }
        }
        scanned
    }

    /// Returns whether an argument says so of a stage: it is true, or has the stage's name.
    fn is_scanned(&self, id: usize, arg: &str) -> bool {
        let state = &self.stages.states[id];
        let own = state.args.iter().rev().find(|(name, _)| name == arg);
        let own = own.and_then(|(_, value)| value.as_deref());
        let given = self.options.build_args.get(arg).map(String::as_str);
        let Some(value) = own.or(given).or_else(|| self.stages.global.get(arg)) else {
            return false;
        };
        golang::parse_bool(value).unwrap_or_else(|| {
            let mut names = value.split(',');
            names.any(|name| name.eq_ignore_ascii_case(&state.name))
        })
    }
}
