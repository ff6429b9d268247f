//! What goes wrong: links are cut and heal, bridges die, start again and leave.

use std::time::Duration;

use island_bridge::frame::Goodbye;
use island_bridge::journal::Journal;
use island_bridge::routes::RouteTable;
use rand::RngExt;

use super::{Job, WIRE_DELAY, World};
use crate::link::Content;

/// How long an island takes to find that one of its bridges is dead.
const DEATH_DELAY: Duration = Duration::from_millis(800);

impl World {
    pub(crate) fn cut(&mut self, link: usize) {
        self.links[link].is_cut = true;
    }

    pub(crate) fn heal(&mut self, link: usize) {
        self.links[link].is_cut = false;
        for packet in std::mem::take(&mut self.links[link].held) {
            self.plan(self.links[link].delay, Job::Arrive(packet));
        }
    }

    /// The process ends without a word; its connections are reset.
    pub(crate) fn kill(&mut self, bridge: usize) {
        self.bridges[bridge].is_dead = true;
        for (link, end) in self.bridges[bridge].ends.clone() {
            if self.links[link].ends[end].session.take().is_some() {
                self.send(link, end, Content::Closed);
            }
        }
        self.plan(DEATH_DELAY, Job::Found(bridge));
    }

    /// The process starts again, with a journal that nobody has read.
    pub(crate) fn restart(&mut self, bridge: usize) {
        self.kill(bridge);
        let instance = self.rng.random();
        let name = self.islands[self.bridges[bridge].island].name.clone();
        let this = &mut self.bridges[bridge];
        (this.is_dead, this.routes_wake_at, this.said) = (false, None, Vec::new());
        (this.journal, this.routes) = (Journal::new(instance, 100_000), RouteTable::new(name));
        for known in this.table.values() {
            for word in known.words() {
                this.journal.record(word.change(), None).expect("the journal has room");
            }
        }
        // It fetches its island's table, the other bridges' routes with it; its own last word is void.
        for sibling in self.siblings(bridge) {
            let (id, said) = (self.bridges[sibling].id, self.bridges[sibling].said.clone());
            self.plan(WIRE_DELAY, Job::WireRoutes(bridge, id, said));
            self.plan(WIRE_DELAY, Job::WireRoutes(sibling, self.bridges[bridge].id, Vec::new()));
        }
        for (link, end) in self.bridges[bridge].ends.clone() {
            self.links[link].ends[end].bookmark = None;
            if end == 0 {
                self.plan(Duration::from_millis(50), Job::Dial(link));
            }
        }
    }

    /// The bridge leaves on purpose.
    pub(crate) fn leave(&mut self, bridge: usize) {
        self.bridges[bridge].routes.leave(self.now);
        self.settle(bridge);
        for (link, end) in self.bridges[bridge].ends.clone() {
            if let Some(session) = &mut self.links[link].ends[end].session {
                session.goodbye(self.now, Goodbye::Leaving);
            }
        }
        self.settle(bridge);
        // Whoever calls it now finds nobody.
        self.bridges[bridge].is_dead = true;
    }
}
