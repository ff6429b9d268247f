//! What a bridge tells of its own island to others.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::Membership;
use crate::event::EventKind;
use crate::far::{FarWord, quorum};
use crate::member::{MemberId, Stamp};
use crate::outward::{News, What};
use crate::table::Entry;
use crate::wire::Message;

/// Others are told of the same member this often at most that it lives.
const REFUTE_EVERY: Duration = Duration::from_secs(1);
/// A pulse of an accused member is waited for for so long.
const REFUTE_WAIT: Duration = Duration::from_secs(5);
/// It is asked so often, further apart each time: over a second.
const REFUTE_ASKS: u8 = 5;
/// An accused member has answered after this, or is asked again.
const REFUTE_ASK_AGAIN: Duration = Duration::from_millis(100);
/// Members remembered for that.
const REFUTED_MAX: usize = 256;

/// Somebody of whom other islands are told that it lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refuted {
    at: Instant,
    /// They know its words up to this: it is told once we have heard a newer one since.
    beyond: Option<Stamp>,
}

impl Refuted {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let most = if self.beyond.is_some() { REFUTE_WAIT } else { REFUTE_EVERY };
        now.saturating_duration_since(self.at) >= most
    }
}

impl Membership {
    /// From now on news are kept for [`poll_news`](Self::poll_news). To be called before [`start`](Self::start).
    pub fn tell_outward(&mut self) {
        self.abroad.outward = true;
    }

    /// Whether it is one that tells other islands what happens here.
    pub(in crate::membership) fn tells_outward(&self) -> bool {
        self.abroad.outward
    }

    /// The next thing that other islands are to be told. Nothing, unless [`tell_outward`](Self::tell_outward) was called.
    pub fn poll_news(&mut self) -> Option<News> {
        let mut news = self.abroad.news.pop_front()?;
        if let News::Said { member, gone, .. } = &mut news {
            // Only now: whoever told us may have said that it is gone for longer than we know it.
            *gone = self.gone_since(member);
        }
        Some(news)
    }

    fn gone_since(&self, id: &MemberId) -> Option<Instant> {
        let home = self.table.get(id).and_then(|entry| entry.gone);
        if self.is_home(id) { home } else { self.abroad.far.gone_since(id).or(home) }
    }

    pub(super) fn news(&mut self, news: News) {
        if self.abroad.outward {
            self.abroad.news.push_back(news);
        }
    }

    fn say_outward(&mut self, member: MemberId, what: What, bytes: Bytes, is_urgent: bool) {
        self.news(News::Said { member, what, bytes, is_urgent, from: None, gone: None });
    }

    /// Our own record or farewell.
    pub(in crate::membership) fn tell_own_word(&mut self, bytes: &Bytes, is_urgent: bool) {
        if self.abroad.outward {
            let id = self.id();
            self.say_outward(id, What::Own, bytes.clone(), is_urgent);
        }
    }

    /// A member of our own island has said something new: told if it counts itself to it. Also a farewell of somebody
    /// whose record we do not know: we have just started and others, who knew us before, may list it.
    pub(in crate::membership) fn tell_word_of(&mut self, id: &MemberId, bytes: &Bytes) {
        if !self.abroad.outward {
            return;
        }
        let has_left = self.table.get(id).is_some_and(Entry::has_left);
        let is_urgent = match self.home_record(id) {
            Some((_, record)) if record.island != self.record.island => return,
            Some((_, record)) => has_left || record.draining,
            None if has_left => true,
            None => return,
        };
        self.say_outward(*id, What::Own, bytes.clone(), is_urgent);
    }

    /// The same for everybody who is listed: our island has another name now.
    pub(super) fn tell_all_words(&mut self) {
        if !self.abroad.outward {
            return;
        }
        let words: Vec<(MemberId, Bytes)> = self
            .table
            .iter()
            .filter_map(|(id, entry)| {
                let record = entry.record.as_ref().map(|said| &said.bytes);
                let end = entry.end.as_ref().filter(|_| entry.has_left()).map(|said| &said.bytes);
                Some((*id, end.or(record)?.clone()))
            })
            .collect();
        for (id, bytes) in words {
            self.tell_word_of(&id, &bytes);
        }
    }

    /// A member of our own island is down by this certificate.
    pub(in crate::membership) fn tell_down(&mut self, id: &MemberId, certificate: &Bytes) {
        if self.abroad.outward {
            self.say_outward(*id, What::Down, certificate.clone(), true);
        }
    }

    /// Another has voted on a member of our own island that is down already. Told unless the votes before it convince
    /// everybody: whoever has just started finds few of them enough, as it knows few members, and others do not.
    pub(in crate::membership) fn tell_vote(&mut self, id: &MemberId, voter: &MemberId) {
        let record = self.table.record(id).map(|said| said.value.clone());
        let doubt = self.peers.get(id).and_then(|peer| peer.doubt.as_ref());
        let (Some(record), Some(doubt), true) = (record, doubt, self.abroad.outward) else { return };
        let has_voted = |watcher: &&MemberId| *watcher != voter && doubt.votes.contains_key(*watcher);
        if record.watchers.iter().filter(has_voted).count() >= quorum(record.watchers.len()) {
            return;
        }
        if let Some(bytes) = self.certificate(id) {
            self.tell_down(id, &bytes);
        }
    }

    /// A member of our own island is not down any more. If a record says so, that was told.
    pub(in crate::membership) fn tell_refuted(&mut self, id: &MemberId) {
        if !self.abroad.outward {
            return;
        }
        let Some(entry) = self.table.get(id) else { return };
        let record = entry.record.as_ref().map(|said| said.stamp);
        let newer = entry.pulse.as_ref().filter(|pulse| Some(pulse.stamp) > record);
        if let Some(bytes) = newer.map(|said| said.bytes.clone()) {
            self.say_outward(*id, What::Refuted, bytes, true);
        }
    }

    /// Another island holds a member of ours, or ourselves, for down that is not here. What we were told of it, or heard
    /// before, says nothing against that: we may have just started, or not have counted the votes yet, and what its own
    /// island agrees on in the end must not be void elsewhere. So it is asked, and the first pulse that we hear since goes
    /// there. Where those who say so claim to know its newest, the member itself is told, and answers with a newer one,
    /// or with a record if they claim to know what it has never said.
    pub(super) fn refute_abroad(&mut self, now: Instant, id: MemberId, heard: &FarWord) {
        self.abroad.refuted.retain(|_, refuted| !refuted.is_over(now));
        let refuted = &self.abroad.refuted;
        if !self.abroad.outward || refuted.len() >= REFUTED_MAX || refuted.contains_key(&id) {
            return;
        }
        let votes = heard.votes.iter().filter_map(|vote| match &vote.message {
            Some(Message::Suspect(vote)) => Some(vote),
            _ => None,
        });
        if id == self.id() {
            self.abroad.refuted.insert(id, Refuted { at: now, beyond: None });
            let lie =
                votes.filter(|vote| vote.epoch == self.identity.epoch() && vote.last_seq > self.seq).last();
            if let Some(lie) = lie {
                self.belie(now, lie.record_seq);
            } else {
                let bytes = self.signed_beacon(now);
                self.say_outward(id, What::Refuted, bytes, true);
            }
            return;
        }
        let Some(record) = self.home_record(&id).map(|(stamp, _)| stamp) else { return };
        let by_this = votes.filter(|vote| (vote.epoch, vote.record_seq) == (record.epoch, record.seq));
        let Some(beyond) = by_this.map(|vote| Stamp { epoch: vote.epoch, seq: vote.last_seq }).max() else {
            // By another record: the one that we know is told anyway.
            return;
        };
        if !self.is_known_gone(&id) {
            self.abroad.refuted.insert(id, Refuted { at: now, beyond: Some(beyond) });
            let newest = self.table.get(&id).and_then(Entry::newest);
            if newest.is_none_or(|newest| newest <= beyond) {
                self.send_to_each(&[id], &heard.word.bytes);
            }
            self.ask(now, id, REFUTE_ASKS, REFUTE_ASK_AGAIN);
            if let Some(peer) = self.peers.get_mut(&id) {
                // None of its pulses waits for its signature to be checked: each may be the one that is waited for.
                peer.eager_until = peer.eager_until.max(Some(now + REFUTE_WAIT));
            }
        }
    }

    /// There is a newer word of a member of our own island: others may wait for that. It is said if it is a pulse that those
    /// do not know, and we have heard that member since it was accused elsewhere.
    pub(in crate::membership) fn has_spoken_at_home(&mut self, now: Instant, id: MemberId) {
        let Some(refuted) = self.abroad.refuted.get_mut(&id).filter(|refuted| !refuted.is_over(now)) else {
            return;
        };
        let heard = self.peers.get(&id).and_then(|peer| peer.heard);
        let pulse = self.table.get(&id).and_then(|entry| entry.pulse.as_ref());
        if let (Some(beyond), Some(heard), Some(pulse)) = (refuted.beyond, heard, pulse)
            && heard >= refuted.at
            && pulse.stamp > beyond
        {
            *refuted = Refuted { at: now, beyond: None };
            let bytes = pulse.bytes.clone();
            self.say_outward(id, What::Refuted, bytes, true);
        }
    }

    /// A member of our own island is listed no more because its time is over.
    pub(in crate::membership) fn tell_forgotten(&mut self, now: Instant, id: MemberId) {
        self.unlist(now, id);
        self.abroad.far.forget_end(&id);
        self.news(News::Forgotten(id));
    }

    /// A member of our own island counts itself to another.
    pub(in crate::membership) fn tell_withdrawn(&mut self, now: Instant, id: MemberId) {
        self.unlist(now, id);
        self.news(News::Withdrawn(id));
    }

    /// A member, which is in the table of our own island no more, is not listed there any more.
    pub(super) fn unlist(&mut self, now: Instant, id: MemberId) {
        if let Some(last) = self.peers.swap_remove(&id).and_then(|peer| peer.view) {
            self.tell(last, Some(EventKind::Forgotten));
        }
        self.abroad.pulls.forget(&id);
        if self.abroad.far.routes.remove(&id) {
            self.reconsider_ways(now);
        }
    }
}
