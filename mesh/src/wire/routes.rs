//! ROUTES: the ways behind a bridge's links, as many to a datagram as fit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::body;
use super::fields::{Few, Label, Text};
use super::{DATAGRAM_BYTES_MAX, DecodeError, HEADER_BYTES, REACHES_MAX, Routes, SIGNATURE_BYTES};
use crate::path::{PATH_ISLANDS_MAX, Path};
use crate::reach::{IslandLoad, Reach};

/// The map with its keys and both numbers, and the marker of the list.
const FRAME_BYTES: usize = 1 + 2 * (2 + 2) + 2 + 3;
const REACHES_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEADER_BYTES - SIGNATURE_BYTES - FRAME_BYTES;

#[derive(Serialize, Deserialize)]
pub(super) struct RoutesBody {
    #[serde(default)]
    p: u8,
    n: u8,
    #[serde(default)]
    r: Few<ReachBody, REACHES_MAX>,
}

/// Path, cost in microseconds, members, in flight, capacity.
#[derive(Serialize, Deserialize)]
struct ReachBody(Few<Text<Label>, PATH_ISLANDS_MAX>, u32, u32, u32, u32);

impl From<&Routes> for RoutesBody {
    fn from(routes: &Routes) -> Self {
        Self { p: routes.part, n: routes.parts, r: Few(routes.reaches.iter().map(ReachBody::from).collect()) }
    }
}

impl From<&Reach> for ReachBody {
    fn from(reach: &Reach) -> Self {
        let islands = reach.path.islands().iter().map(|island| island.clone().into()).collect();
        let micros = u32::try_from(reach.cost.as_micros()).unwrap_or(u32::MAX);
        let IslandLoad { members, in_flight, capacity } = reach.load;
        Self(Few(islands), micros, members, in_flight, capacity)
    }
}

impl RoutesBody {
    pub(super) fn routes(self) -> Result<Routes, DecodeError> {
        if self.p >= self.n {
            return Err(DecodeError::Malformed("a part beyond the last"));
        }
        let reaches = self.r.0.into_iter().map(ReachBody::reach).collect::<Result<_, _>>()?;
        Ok(Routes { part: self.p, parts: self.n, reaches })
    }
}

impl ReachBody {
    fn reach(self) -> Result<Reach, DecodeError> {
        let Self(islands, micros, members, in_flight, capacity) = self;
        let islands = islands.0.into_iter().map(|island| island.0).collect();
        let path = Path::new(islands).map_err(|_| DecodeError::Malformed("a way that is no path"))?;
        let load = IslandLoad { members, in_flight, capacity };
        Ok(Reach { path, cost: Duration::from_micros(micros.into()), load })
    }
}

/// All these ways, in as few words as they fit; one without any for none. Ways beyond the 255th word are left out: even
/// the longest paths to 250 islands, two to each, take fewer.
#[must_use]
pub fn in_parts(reaches: Vec<Reach>) -> Vec<Routes> {
    let mut parts: Vec<Vec<Reach>> = vec![Vec::new()];
    let mut bytes = 0;
    let mut encoded = Vec::new();
    for reach in reaches {
        encoded.clear();
        body::put(&ReachBody::from(&reach), &mut encoded);
        let part = parts.last_mut().expect("there is always a part");
        if bytes + encoded.len() > REACHES_BYTES_MAX || part.len() == REACHES_MAX {
            bytes = 0;
            parts.push(vec![reach]);
        } else {
            part.push(reach);
        }
        bytes += encoded.len();
    }
    parts.truncate(usize::from(u8::MAX));
    let count = u8::try_from(parts.len()).unwrap_or(u8::MAX);
    (0..count).zip(parts).map(|(part, reaches)| Routes { part, parts: count, reaches }).collect()
}
