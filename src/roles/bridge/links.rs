//! Links as people see them.

use island_bridge::bridge::LinkStatus;
use island_bridge::frame::Refusal;
use isle_mesh::member::MemberId;

use crate::api::view::{LinkView, millis};

/// A link, its ends in the order of their keys: so that it looks the same from both.
pub(super) fn view(own: MemberId, island: &str, link: &LinkStatus) -> LinkView {
    let other = link.island.clone().unwrap_or_default();
    let (ends, islands) = match own < link.peer {
        true => ([own, link.peer], [island.to_owned(), other]),
        false => ([link.peer, own], [other, island.to_owned()]),
    };
    let refused = link.refused.map(|refused| refused.reason);
    LinkView {
        ends: ends.map(|id| id.to_string()),
        islands,
        state: refused.map_or(link.state.as_str(), |_| "refused").to_owned(),
        round_trip_ms: link.round_trip.map(millis),
        since_ms: millis(link.since),
        reason: refused.map(|reason| reason.as_str().to_owned()).or_else(|| link.trouble.clone()),
        advice: refused.map(|reason| advice(reason).to_owned()),
    }
}

/// What to do about a refused link: a sentence with a command.
fn advice(reason: Refusal) -> &'static str {
    match reason {
        Refusal::UnknownKey => {
            "On the side that is called, let this one in: isle bridge allow KEY, with the KEY that isle key prints here."
        }
        Refusal::Version => "Bring the older side up to date.",
        Refusal::SameName => {
            "Start one of the two bridges with --island and another NAME, and so all nodes of its island that were given one."
        }
        Refusal::InviteExpired | Refusal::InviteUsed => "Have the other side make another: isle invite",
    }
}
