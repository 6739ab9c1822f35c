use super::glob::{Class, next_char};

/// A nondeterministic automaton for patterns with wildcards. Matching takes time linear in the
/// path, whatever the pattern.
#[derive(Debug, Clone, Default)]
pub(super) struct Automaton {
    nodes: Vec<Node>,
    /// What every match begins and ends with.
    prefix: String,
    suffix: String,
}

/// A place in the pattern: what it takes, and where that leads.
#[derive(Debug, Clone)]
enum Node {
    Literal(char),
    /// `?`
    AnyChar,
    Class(Class),
    /// `*`: stays while there is no `/`.
    Star,
    /// `**` at the end: stays.
    Rest,
    /// `**/`: nothing, or [`Node::DirsBody`].
    Dirs,
    /// Stays; leads on after each `/`.
    DirsBody,
}

impl Automaton {
    pub(super) fn literal(&mut self, c: char) {
        self.nodes.push(Node::Literal(c));
    }

    pub(super) fn any_char(&mut self) {
        self.nodes.push(Node::AnyChar);
    }

    pub(super) fn class(&mut self, class: Class) {
        self.nodes.push(Node::Class(class));
    }

    pub(super) fn star(&mut self) {
        self.nodes.push(Node::Star);
    }

    pub(super) fn rest(&mut self) {
        self.nodes.push(Node::Rest);
    }

    pub(super) fn dirs(&mut self) {
        self.nodes.extend([Node::Dirs, Node::DirsBody]);
    }

    /// Ends the construction.
    pub(super) fn finish(mut self) -> Self {
        let literal = |node: &Node| match node {
            Node::Literal(c) => Some(*c),
            _ => None,
        };
        self.prefix = self.nodes.iter().map_while(literal).collect();
        self.suffix = self.nodes.iter().rev().map_while(literal).collect();
        self.suffix = self.suffix.chars().rev().collect();
        self
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        // Nearly all paths fail here.
        if !path.starts_with(self.prefix.as_bytes()) || !path.ends_with(self.suffix.as_bytes()) {
            return false;
        }
        let mut active = States::new(self.nodes.len() + 1);
        let mut next = States::new(self.nodes.len() + 1);
        self.enter(&mut active, 0);
        let mut rest = path;
        while let Some((c, length)) = next_char(rest) {
            rest = &rest[length..];
            next.clear();
            for at in active.iter() {
                self.step(at, c, &mut next);
            }
            if next.is_empty() {
                return false;
            }
            std::mem::swap(&mut active, &mut next);
        }
        active.contains(self.nodes.len())
    }

    fn step(&self, at: usize, c: char, next: &mut States) {
        let Some(node) = self.nodes.get(at) else {
            return;
        };
        match node {
            Node::Literal(literal) if *literal == c => self.enter(next, at + 1),
            Node::AnyChar if c != '/' => self.enter(next, at + 1),
            Node::Class(class) if class.contains(c) => self.enter(next, at + 1),
            Node::Star if c != '/' => self.enter(next, at),
            Node::Rest if c != '\n' => self.enter(next, at),
            Node::DirsBody if c != '\n' => {
                next.insert(at);
                if c == '/' {
                    self.enter(next, at + 1);
                }
            }
            _ => {}
        }
    }

    /// Makes `at` active, and what can be reached from it without a character.
    fn enter(&self, states: &mut States, mut at: usize) {
        while states.insert(at) {
            match self.nodes.get(at) {
                Some(Node::Star | Node::Rest) => at += 1,
                Some(Node::Dirs) => {
                    states.insert(at + 1);
                    at += 2;
                }
                _ => return,
            }
        }
    }
}

/// A set of small numbers.
struct States(Vec<u64>);

impl States {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// Adds `at`; returns whether it is new.
    fn insert(&mut self, at: usize) -> bool {
        let (word, bit) = (&mut self.0[at / 64], 1 << (at % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn contains(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let nonzero = |bits: u64| (bits != 0).then_some(bits);
            std::iter::successors(nonzero(word), move |bits| nonzero(bits & (bits - 1)))
                .map(move |bits| index * 64 + bits.trailing_zeros() as usize)
        })
    }
}
