//! The vertices in flight, found by their numbers without a search.

use std::collections::VecDeque;
use std::ops::Index;

use super::state::{Ix, Vertex};

/// Numbers ascend and are never given twice. Places of vertices that are gone are kept as long as
/// an older vertex is in flight.
pub(super) struct Vertices<R, E> {
    /// The number of the first place.
    first: u64,
    /// The first one is taken, if there is any.
    places: VecDeque<Option<Box<Vertex<R, E>>>>,
}

impl<R, E> Default for Vertices<R, E> {
    fn default() -> Self {
        Self {
            first: 0,
            places: VecDeque::new(),
        }
    }
}

impl<R, E> Vertices<R, E> {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns the number that [`add`](Self::add) gives next.
    pub(super) fn next(&self) -> Ix {
        Ix(self.first + self.places.len() as u64)
    }

    pub(super) fn add(&mut self, vertex: Vertex<R, E>) -> Ix {
        let ix = self.next();
        self.places.push_back(Some(Box::new(vertex)));
        ix
    }

    pub(super) fn get(&self, ix: Ix) -> Option<&Vertex<R, E>> {
        self.places.get(self.place(ix)?)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, ix: Ix) -> Option<&mut Vertex<R, E>> {
        let place = self.place(ix)?;
        self.places.get_mut(place)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, ix: Ix) -> Option<Vertex<R, E>> {
        let place = self.place(ix)?;
        let vertex = self.places.get_mut(place)?.take()?;
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
        }
        Some(*vertex)
    }

    fn place(&self, ix: Ix) -> Option<usize> {
        ix.0.checked_sub(self.first).map(|place| place as usize)
    }
}

impl<R, E> Index<&Ix> for Vertices<R, E> {
    type Output = Vertex<R, E>;

    fn index(&self, ix: &Ix) -> &Vertex<R, E> {
        self.get(*ix).expect("a vertex outlives what refers to it")
    }
}
