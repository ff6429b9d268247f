//! Members of other islands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Membership;
use crate::far::{FarTransfer, FarWord};
use crate::island::Island;
use crate::member::{Member, MemberId};
use crate::outward::News;
use crate::reach::Reach;
use crate::verify::Refused;
use crate::wire::Routes;

use super::FarFetch;

impl Membership {
    /// stub
    pub fn tell_outward(&mut self) {}
    /// stub
    pub fn set_foreign(&mut self, _now: Instant, _keys: BTreeSet<MemberId>) {}
    /// stub
    pub fn say_reaches(&mut self, _now: Instant, _reaches: Vec<Reach>) {}
    /// stub
    pub fn hear_far(
        &mut self,
        _now: Instant,
        _from: MemberId,
        _withdrawn: &[MemberId],
        _words: &[FarWord],
        _is_urgent: bool,
    ) {
    }
    /// stub
    #[must_use]
    pub fn far_records(&self, _instance: u64, _since: u64) -> Bytes {
        Bytes::new()
    }
    /// stub
    pub fn merge_far(&mut self, _now: Instant, _from: MemberId, _transfer: &FarTransfer) {}
    /// stub
    pub fn far_fetch_failed(&mut self, _now: Instant, _from: MemberId) {}
    /// stub
    pub fn far_members(&self) -> impl Iterator<Item = &Arc<Member>> {
        std::iter::empty()
    }
    /// stub
    pub fn poll_news(&mut self) -> Option<News> {
        None
    }
    /// stub
    pub fn poll_far_fetch(&mut self) -> Option<FarFetch> {
        None
    }
    /// stub
    pub fn take_islands(&mut self) -> Option<Arc<BTreeMap<String, Arc<Island>>>> {
        None
    }
    /// stub
    pub(super) fn hear_routes(&mut self, _routes: &Routes) -> Result<(), Refused> {
        Err(Refused::Unasked)
    }
}
