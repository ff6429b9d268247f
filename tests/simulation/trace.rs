//! What happens, printed as it happens: `ISLE_SIMULATION_TRACE=1`. Beacons, pings and load are left out.

use std::fmt;

use bytes::Bytes;
use isle_mesh::event::Event;
use isle_mesh::member::{Member, MemberId, Record};
use isle_mesh::wire::Message;

use crate::world::World;

impl World {
    /// One line: when, at which node, what.
    pub fn note(&self, node: usize, what: fmt::Arguments<'_>) {
        if self.trace {
            let at = (self.now - self.began).as_secs_f64();
            println!("{at:10.4} s  {}n{node:<5} {what}", self.label());
        }
    }

    /// The same of what concerns nobody alone.
    pub fn note_of_all(&self, what: fmt::Arguments<'_>) {
        if self.trace {
            println!("{:10.4} s  {}all    {what}", (self.now - self.began).as_secs_f64(), self.label());
        }
    }

    /// Which island of many this is.
    fn label(&self) -> String {
        self.site.island.as_ref().map_or_else(String::new, |island| format!("{island:<4} "))
    }

    pub fn note_event(&self, node: usize, event: &Event) {
        let Some(member) = event.member().filter(|_| self.trace) else { return };
        let number = self.number_of(&member.id);
        match member.reason {
            Some(reason) => self.note(node, format_args!("{} {number}: {reason:?}", event.kind.as_str())),
            None => self.note(node, format_args!("{} {number}", event.kind.as_str())),
        }
    }

    /// What changes of a member of another island without an event.
    pub fn note_change(&self, node: usize, member: &Member) {
        if self.trace && member.far {
            let Record { name, island, .. } = &*member.record;
            let reason = member.reason;
            self.note(node, format_args!("far: {name} of {island} by {:?}: {reason:?}", member.stamp));
        }
    }

    pub fn note_word(&mut self, node: usize, bytes: &Bytes) {
        if !self.trace {
            return;
        }
        let word = self.network.word(bytes);
        match &word.message {
            Some(Message::Announce(record)) => {
                let watchers: Vec<_> = record.watchers.iter().map(|id| self.number_of(id)).collect();
                let draining = if record.draining { ", draining" } else { "" };
                self.note(
                    node,
                    format_args!("announces {}, watchers {watchers:?}{draining}", word.header.stamp.seq.0),
                );
            }
            Some(Message::Suspect(vote)) => {
                let (target, silence) = (self.number_of(&vote.target), vote.silence_ms);
                self.note(node, format_args!("votes against {target}, silent for {silence} ms"));
            }
            Some(Message::Proof(proof)) => {
                let word = self.network.word(&proof.pulse);
                let (id, seq) = (self.number_of(&word.header.author), word.header.stamp.seq.0);
                self.note(node, format_args!("proves {id} by {seq}"));
            }
            Some(Message::Down(down)) => {
                let votes = down.votes.len();
                let about = down.votes.first().map(|vote| self.network.word(vote));
                let about = about.as_ref().and_then(|word| word.message.as_ref());
                if let Some(Message::Suspect(vote)) = about {
                    let target = self.number_of(&vote.target);
                    self.note(node, format_args!("certifies {target} by {votes} votes"));
                }
            }
            Some(Message::Farewell(_)) => self.note(node, format_args!("says farewell")),
            Some(Message::Hello(hello)) => self.note(node, format_args!("says hello {}", hello.attempt)),
            Some(Message::Ping(ping)) if ping.wants_record => {
                let target = self.number_of(&ping.target);
                self.note(node, format_args!("asks {target} for its record"));
            }
            _ => {}
        }
    }

    pub fn number_of(&self, id: &MemberId) -> String {
        let voice = || self.voice_of(id).map(|voice| format!("v{voice}"));
        let node = self.node_of(id).map(|node| format!("n{node}"));
        node.or_else(voice).unwrap_or_else(|| "nobody".to_owned())
    }
}
