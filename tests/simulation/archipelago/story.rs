//! The sentences that scenarios are made of.

use std::time::Duration;

use isle_mesh::membership::Announcement;
use rand::RngExt;

use super::Archipelago;
use super::link::Place;
use crate::process::State;

/// An island knows a crash within a second where a quorum of watchers lives, else within three.
const FOUND_GONE: Duration = Duration::from_secs(3);

impl Archipelago {
    /// Runs until all agree for the first time, and a while longer: watchers are named, ways are chosen.
    pub fn settles(&mut self) -> &mut Self {
        self.agrees_within(Duration::from_secs(12) + self.crossing());
        self.run_for(Duration::from_secs(3));
        self.agrees_within(Duration::from_secs(4));
        self
    }

    /// Nothing gets over the link between these neighbours any more.
    pub fn cut(&mut self, one: usize, other: usize) -> &mut Self {
        let link = self.link_between(one, other);
        self.cut_link(link);
        self
    }

    pub fn cut_link(&mut self, link: usize) {
        self.note_link(link, "is cut");
        self.links[link].is_cut = true;
    }

    pub fn heal_link(&mut self, link: usize) {
        self.note_link(link, "is whole");
        self.links[link].is_cut = false;
        self.release(link);
    }

    /// All links are whole, and bridges that crashed start again.
    pub fn heal(&mut self) -> &mut Self {
        for link in 0..self.links.len() {
            if self.links[link].is_cut {
                self.heal_link(link);
            }
        }
        for place in self.ends.keys().copied().collect::<Vec<_>>() {
            if !self.islands[place.island].processes[place.node].lives() {
                self.restart(place);
            }
        }
        self
    }

    pub fn link_between(&self, one: usize, other: usize) -> usize {
        let is_it = |edge: &(usize, usize)| *edge == (one, other) || *edge == (other, one);
        self.graph.edges.iter().position(is_it).expect("these islands are neighbours")
    }

    fn note_link(&self, link: usize, what: &str) {
        for end in [0, 1] {
            let other = self.links[link].ends[1 - end].place.island;
            self.note(self.links[link].ends[end].place, format_args!("link to i{other} {what}"));
        }
    }

    /// So many troubles by lot, one after the other, up to `pause` apart. Then, for as long as an island may take to find
    /// that somebody is gone without a word, all but that.
    pub fn troubles(&mut self, count: usize, pause: Duration) -> &mut Self {
        let mut left = count;
        let mut crashes_end = None;
        while left > 0 || crashes_end.is_none_or(|end| self.now < end) {
            left = left.saturating_sub(1);
            if left == 0 {
                crashes_end.get_or_insert(self.now + FOUND_GONE);
            }
            self.any_trouble(left > 0 && self.crashes);
            let pause = pause.mul_f64(self.random.random_range(0.0..1.0));
            self.run_for(pause);
        }
        self
    }

    pub fn any_trouble(&mut self, with_crashes: bool) {
        let island = self.random.random_range(0..self.islands.len());
        match self.random.random_range(0..16) {
            0 | 3 | 11 if !with_crashes || !self.can_lose_one(island) => {}
            0 => self.with_member(island, Self::crash),
            1 => self.with_member(island, Self::farewell_for_another),
            2 => self.with_member(island, Self::restart),
            3 => self.with_member(island, Self::restart_afresh),
            4..6 => self.with_member(island, Self::says_news),
            6 => self.in_island(island, |world| {
                world.join(1);
            }),
            7 => self.cut_link_by_lot(),
            8 | 9 => self.heal_link_by_lot(),
            10 => self.restart_bridge(island),
            11 => self.crash_bridge(island),
            _ => self.trouble_with_voices(island, with_crashes),
        }
    }

    fn trouble_with_voices(&mut self, island: usize, with_crashes: bool) {
        if self.islands[island].voices.is_empty() {
            return self.with_member(island, Self::says_news);
        }
        let kind = self.random.random_range(usize::from(!with_crashes)..6);
        let lot = self.random.random_range(0..usize::MAX);
        self.in_island(island, |world| {
            let living = world.voices_that_live();
            let gone: Vec<_> = (0..world.voices.len()).filter(|voice| !living.contains(voice)).collect();
            match (kind, living.is_empty(), gone.is_empty()) {
                (0, false, _) => world.crash_voice(living[lot % living.len()]),
                (1, false, _) => world.farewell_of_voice(living[lot % living.len()]),
                (2, _, false) => world.restart_voice(gone[lot % gone.len()]),
                (3, ..) => world.start_voices(1, Duration::ZERO),
                (_, false, _) => world.news_of_voice(living[lot % living.len()]),
                _ => {}
            }
        });
    }

    /// Where most only author words few keep a table: of those one at a time is gone without a word.
    fn can_lose_one(&self, island: usize) -> bool {
        let world = &self.islands[island];
        let living = world.processes.iter().filter(|process| process.state == State::Running);
        world.voices.is_empty() || living.count() >= self.bridges_each + self.members_each
    }

    /// Something happens to a member that is no bridge, unless too few are left.
    fn with_member(&mut self, island: usize, what: fn(&mut Self, Place)) {
        let processes = &self.islands[island].processes;
        let running: Vec<usize> = (self.bridges_each..processes.len())
            .filter(|node| processes[*node].state == State::Running)
            .collect();
        if running.len() * 2 > self.members_each {
            let node = running[self.random.random_range(0..running.len())];
            what(self, Place { island, node });
        }
    }

    fn cut_link_by_lot(&mut self) {
        let link = self.random.random_range(0..self.links.len());
        self.cut_link(link);
    }

    fn heal_link_by_lot(&mut self) {
        let cut: Vec<usize> = (0..self.links.len()).filter(|link| self.links[*link].is_cut).collect();
        if !cut.is_empty() {
            let link = cut[self.random.random_range(0..cut.len())];
            self.heal_link(link);
        }
    }

    pub fn restart_bridge(&mut self, island: usize) {
        let node = self.random.random_range(0..self.bridges_each);
        self.restart(Place { island, node });
    }

    fn crash_bridge(&mut self, island: usize) {
        let node = self.random.random_range(0..self.bridges_each);
        if self.islands[island].processes[node].lives() {
            self.crash(Place { island, node });
        }
    }

    pub fn crash(&mut self, place: Place) {
        self.in_island(place.island, |world| world.crash_of(place.node));
    }

    pub fn farewell(&mut self, place: Place) {
        self.in_island(place.island, |world| world.farewell_of(place.node));
    }

    /// Where few keep a table another comes for it.
    fn farewell_for_another(&mut self, place: Place) {
        if !self.islands[place.island].voices.is_empty() {
            self.in_island(place.island, |world| {
                world.join(1);
            });
        }
        self.farewell(place);
    }

    pub fn restart(&mut self, place: Place) {
        self.in_island(place.island, |world| world.restart_of(place.node));
    }

    fn restart_afresh(&mut self, place: Place) {
        self.in_island(place.island, |world| world.restart_afresh(place.node));
    }

    fn says_news(&mut self, place: Place) {
        let news = self.random.random_range(0..1_000_000);
        let tags = Some(vec![("news".to_owned(), news.to_string())]);
        let now = self.now;
        self.in_island(place.island, |world| {
            let news = Announcement { tags, ..Announcement::default() };
            world.input(place.node, now, |machine| machine.announce(now, &news));
        });
    }

    fn in_island(&mut self, island: usize, what: impl FnOnce(&mut crate::world::World)) {
        self.islands[island].now = self.now;
        what(&mut self.islands[island]);
        self.attend(island);
    }

    /// How often everybody that runs was told of an island's fall, or rise: what it counted differs from this at whom.
    pub fn counted(
        &self,
        what: fn(&super::FarWitness) -> u32,
        expected: impl Fn(usize) -> u32,
    ) -> Option<String> {
        for (island, world) in self.islands.iter().enumerate() {
            for (node, process) in world.processes.iter().enumerate().filter(|(_, process)| process.lives()) {
                let (found, wanted) = (what(&self.witnesses[island][node]), expected(island));
                if found != wanted || process.state != State::Running {
                    return Some(format!("i{island} n{node} counted {found}, not {wanted}"));
                }
            }
        }
        None
    }

    pub fn forget_counts(&mut self) {
        self.witnesses.iter_mut().flatten().for_each(super::FarWitness::forget_counts);
    }

    pub fn false_downs(&self) -> u64 {
        self.islands.iter().map(|island| island.measures.false_downs).sum()
    }

    pub fn report(&self) {
        let deliveries: u64 = self.islands.iter().map(|island| island.measures.deliveries).sum();
        println!(
            "seed {}: {}, {:.1?} of time, {deliveries} deliveries, {} far fetches, {} false downs",
            self.seed,
            self.called(),
            self.now - self.began,
            self.fetched,
            self.false_downs(),
        );
    }
}
