//! `larder du` and `prune`

use std::io;

use anyhow::anyhow;
use jiff::Timestamp;
use larder_engine::{Filter, PruneRequest};

use super::Context;
use crate::args::{DuArgs, PruneArgs};
use crate::du::{self, DuFormat};
use crate::output;

/// Prints what the cache holds.
pub(crate) fn du(args: &DuArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let format = match &args.format {
        Some(text) => {
            DuFormat::parse(text).map_err(|problem| anyhow!(problem).context("`--format`"))?
        }
        None => DuFormat::default(args.verbose),
    };
    let filters = filters(&args.filters)?;
    let records = context.engine()?.disk_usage(&filters)?;
    let mut text = format.render(&records, Timestamp::now());
    if format.has_summary() && filters.is_empty() {
        // Blocks of the detailed form end in an empty line already.
        let gap = if format == DuFormat::Pretty { "" } else { "\n" };
        text = text + gap + &du::summary(&records);
    }
    Ok(output::print(&text)?)
}

/// Removes records, after asking.
pub(crate) fn prune(args: &PruneArgs, context: &Context<'_>) -> anyhow::Result<()> {
    if args.keep_storage.is_some() {
        // Docker's words: scripts look for them.
        output::tell(
            "Flag --keep-storage has been deprecated, keep-storage flag has been changed to reserved-space",
        );
    }
    let request = PruneRequest {
        all: args.all,
        keep_cache_mounts: true,
        filters: filters(&args.filters)?,
        reserved_space: args.reserved_space.or(args.keep_storage).unwrap_or(0),
        max_used_space: args.max_used_space.unwrap_or(0),
        min_free_space: args.min_free_space.unwrap_or(0),
        ..PruneRequest::default()
    };
    if !args.force && !confirmed(&du::prune_question(args.all))? {
        return Ok(());
    }
    let mut removed = Vec::new();
    let freed = context
        .engine()?
        .prune(&request, &mut |record| removed.push(record.clone()))?;
    if !removed.is_empty() {
        let format = DuFormat::default(args.verbose);
        output::print(&format.render(&removed, Timestamp::now()))?;
    }
    Ok(output::print(&du::freed(freed))?)
}

/// Joins conditions, all of which must hold, into one filter; none if there are none.
fn filters(conditions: &[String]) -> anyhow::Result<Vec<Filter>> {
    if conditions.is_empty() {
        return Ok(Vec::new());
    }
    let filter = conditions.join(",").parse::<Filter>();
    Ok(vec![
        filter.map_err(|error| anyhow!(error).context("`--filter`"))?,
    ])
}

/// Asks whether to go on. No answer is a no.
pub(crate) fn confirmed(question: &str) -> anyhow::Result<bool> {
    output::print(question)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(du::is_yes(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_joined_and_checked() {
        let conditions = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| (*text).to_owned()).collect()
        };
        assert!(filters(&[]).unwrap().is_empty());
        let joined = filters(&conditions(&["type=exec.cachemount", "until=24h"])).unwrap();
        assert_eq!(joined.len(), 1);
        let error = filters(&conditions(&["colour=red"])).unwrap_err();
        assert!(
            format!("{error:#}").starts_with("`--filter`: "),
            "{error:#}"
        );
    }
}
