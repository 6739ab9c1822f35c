//! Looking for a record: fast keys first, then content keys, as few as can help.

use std::sync::Arc;

use super::state::{Ask, Content, Ix, Phase, Want};
use super::{Command, Error, Progress, Solver};
use crate::CacheKey;

impl<R: Clone, E: Clone + From<Error>> Solver<R, E> {
    pub(super) fn request_cache_map(&mut self, ix: Ix) {
        let vertex = &self.vertices[&ix];
        if vertex.map.is_some() || self.is_asking(ix, |ask| *ask == Ask::CacheMap) {
            return;
        }
        if vertex.inputs.is_empty() && vertex.progress.is_none() {
            self.notify(ix, Progress::Started);
        }
        self.request(ix, Ask::CacheMap, Vec::new(), |request, vertex| {
            Command::ComputeCacheMap { request, vertex }
        });
    }

    pub(super) fn is_querying(&self, ix: Ix) -> bool {
        self.is_asking(ix, |ask| matches!(ask, Ask::Query { .. }))
    }

    /// Queries the store if there is something new to ask, else widens what can be asked.
    pub(super) fn look_up(&mut self, ix: Ix, output: usize) {
        let vertex = &self.vertices[&ix];
        let known = &vertex.outputs[&output];
        if vertex.ignores_cache() || vertex.is_keyless() || known.lost {
            return;
        }
        if self.is_asking(
            ix,
            |ask| matches!(ask, Ask::Query { output: o, .. } if *o == output),
        ) {
            return;
        }
        if !vertex.content_under_way()
            && let Some(key) = self.query_key(ix)
            && key.can_match()
            && known.asked.as_ref() != Some(&key)
        {
            self.query(ix, output, key);
        } else if known.keys.is_empty() && !known.exhausted {
            self.widen(ix, output);
        }
    }

    /// The key of a vertex with all that its inputs are known as.
    pub(super) fn query_key(&self, ix: Ix) -> Option<CacheKey> {
        self.vertices[&ix].key(|input| {
            self.vertices[&input.from].outputs[&input.output]
                .keys
                .clone()
        })
    }

    fn query(&mut self, ix: Ix, output: usize, key: CacheKey) {
        let ask = Ask::Query {
            output,
            key: key.clone(),
        };
        self.request(ix, ask, Vec::new(), |request, vertex| Command::Query {
            request,
            vertex,
            output,
            key,
        });
    }

    /// Asks for the content keys that can still lead to a record; if none can, the output is
    /// exhausted.
    ///
    /// Inputs whose fast keys lead nowhere come first: if these don't help, neither do the others.
    fn widen(&mut self, ix: Ix, output: usize) {
        let vertex = &self.vertices[&ix];
        let known = &vertex.outputs[&output];
        // An answer from before a candidate came says nothing of that candidate.
        let answered = known.asked.is_some() && known.asked == self.query_key(ix);
        let linked = if answered { &known.linked[..] } else { &[] };
        let mut hopeless = false;
        let (mut needed, mut helpful) = (Vec::new(), Vec::new());
        for (i, input) in vertex.inputs.iter().enumerate() {
            let from = &self.vertices[&input.from];
            let fruitless = linked.get(i) == Some(&false);
            let fast_key_fails = fruitless || from.is_keyless() || from.has_new_key(input.output);
            match (&input.content, vertex.input_map(i).1) {
                (Content::Unknown, true) if fast_key_fails => needed.push(i),
                (Content::Unknown, true) => helpful.push(i),
                (Content::Unknown, false) => hopeless |= fast_key_fails,
                (Content::UnderWay, _) => {}
                (Content::Known(_), _) => hopeless |= fruitless,
            }
        }
        let answered = answered && !vertex.content_under_way();
        if hopeless || (answered && needed.is_empty() && helpful.is_empty()) {
            self.output(ix, output).exhausted = true;
            self.changed.insert(ix);
            self.tell_users(ix);
        } else if !needed.is_empty() {
            self.want_contents(ix, &needed);
        } else if answered {
            self.want_contents(ix, &helpful);
        }
    }

    fn want_contents(&mut self, ix: Ix, inputs: &[usize]) {
        for &input in inputs {
            self.want_content(ix, input);
        }
    }

    /// Has the content key of an input computed, as soon as its result is there.
    pub(super) fn want_content(&mut self, ix: Ix, input: usize) {
        self.want_input(ix, input, Want::Result);
        let content = &mut self.vertex(ix).inputs[input].content;
        if *content == Content::Unknown {
            *content = Content::UnderWay;
        }
    }

    pub(super) fn request_content_keys(&mut self, ix: Ix) {
        let vertex = &self.vertices[&ix];
        let mut ready = Vec::new();
        for (i, input) in vertex.inputs.iter().enumerate() {
            let edge = &self.vertices[&input.from].outputs[&input.output];
            if input.content == Content::UnderWay
                && !self.is_asking(ix, |ask| *ask == Ask::Content { input: i })
                && let Some(held) = &edge.result
            {
                ready.push((i, Arc::clone(&held.value)));
            }
        }
        for (input, value) in ready {
            let result = R::clone(&value);
            self.request(
                ix,
                Ask::Content { input },
                vec![value],
                |request, vertex| Command::ComputeContentKey {
                    request,
                    vertex,
                    input,
                    result,
                },
            );
        }
    }

    /// Brings everything about that running `ix` needs, and looks once more with all content keys
    /// known; then gets in line for running.
    pub(super) fn prepare_run(&mut self, ix: Ix) {
        for input in 0..self.vertices[&ix].inputs.len() {
            self.want_input(ix, input, Want::Result);
            if self.vertices[&ix].input_map(input).1 {
                self.want_content(ix, input);
            }
        }
        self.request_content_keys(ix);
        let vertex = &self.vertices[&ix];
        let ready = vertex.inputs.iter().all(|input| {
            let from = &self.vertices[&input.from];
            from.outputs[&input.output].result.is_some()
        });
        if !ready || vertex.content_under_way() {
            return;
        }
        if vertex.lock.is_none()
            && !vertex.ignores_cache()
            && let Some(lock) = self.lock_name(ix)
        {
            self.lock(ix, lock);
        } else {
            self.vertex(ix).phase = Phase::Queued;
            self.queue.insert(ix);
        }
    }

    pub(super) fn output(&mut self, ix: Ix, output: usize) -> &mut super::state::Output<R> {
        self.vertex(ix).outputs.entry(output).or_default()
    }
}
