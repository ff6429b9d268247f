//! Which islands are joined.

use std::collections::{BTreeSet, VecDeque};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

#[derive(Clone, Debug)]
pub struct Graph {
    pub shape: &'static str,
    pub islands: usize,
    pub edges: Vec<(usize, usize)>,
}

pub fn line(islands: usize) -> Graph {
    let edges = (1..islands).map(|island| (island - 1, island)).collect();
    Graph { shape: "line", islands, edges }
}

pub fn ring(islands: usize) -> Graph {
    let edges = (0..islands).map(|island| (island, (island + 1) % islands)).collect();
    Graph { shape: "ring", islands, edges }
}

pub fn star(islands: usize) -> Graph {
    let edges = (1..islands).map(|island| (0, island)).collect();
    Graph { shape: "star", islands, edges }
}

/// A random tree, and half as many edges again.
pub fn random(islands: usize, seed: u64) -> Graph {
    let mut lots = SmallRng::seed_from_u64(seed);
    let mut edges: Vec<_> = (1..islands).map(|island| (lots.random_range(0..island), island)).collect();
    for _ in 0..islands / 2 {
        let (one, other) = (lots.random_range(0..islands), lots.random_range(0..islands));
        let edge = (one.min(other), one.max(other));
        if one != other && !edges.contains(&edge) {
            edges.push(edge);
        }
    }
    Graph { shape: "random", islands, edges }
}

impl Graph {
    /// How many links are between this island and each other one; `None`: no way.
    pub fn distances(&self, from: usize, is_there: impl Fn(usize) -> bool) -> Vec<Option<u32>> {
        let mut distances = vec![None; self.islands];
        distances[from] = Some(0);
        let mut queue = VecDeque::from([(from, 0)]);
        while let Some((at, distance)) = queue.pop_front() {
            for (number, (one, other)) in self.edges.iter().enumerate() {
                let next = match at {
                    _ if !is_there(number) => continue,
                    at if at == *one => *other,
                    at if at == *other => *one,
                    _ => continue,
                };
                if distances[next].is_none() {
                    distances[next] = Some(distance + 1);
                    queue.push_back((next, distance + 1));
                }
            }
        }
        distances
    }

    /// The longest of the shortest ways, in links.
    pub fn diameter(&self) -> u32 {
        let longest = |from| self.distances(from, |_| true).into_iter().flatten().max();
        (0..self.islands).filter_map(longest).max().unwrap_or(0)
    }

    /// The islands on the far side of an edge without which there is no way to them.
    pub fn beyond(&self, edge: usize, from: usize) -> BTreeSet<usize> {
        let distances = self.distances(from, |number| number != edge);
        (0..self.islands).filter(|island| distances[*island].is_none()).collect()
    }
}
