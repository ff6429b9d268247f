//! What a link is to say and do next. Of what is not taken yet only the newest is kept, so whoever gives an order
//! never waits, however slow the link is: at most two routes for each island, one list of loads, one end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::frame::{Goodbye, IslandLoad, Refusal, Route};

/// To one link. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    given: Notify,
}

/// What was ordered and not taken.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) routes: BTreeMap<String, Vec<Route>>,
    pub(crate) loads: Option<Vec<(String, IslandLoad)>>,
    /// What was lost since it was read is to come again.
    pub(crate) read_anew: bool,
    /// Whether the invite that was shown is good.
    pub(crate) invite: Option<Result<(), Refusal>>,
    pub(crate) end: Option<End>,
}

/// How a link is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Goodbye(Goodbye),
    /// At once, because the two nodes have another connection.
    Replaced,
}

impl Orders {
    pub(crate) fn say_routes(&self, routes: Vec<Route>) {
        if !routes.is_empty() {
            self.give(|pending| {
                pending.routes.extend(Route::by_island(routes));
            });
        }
    }

    pub(crate) fn say_loads(&self, loads: Vec<(String, IslandLoad)>) {
        self.give(|pending| pending.loads = Some(loads));
    }

    pub(crate) fn read_anew(&self) {
        self.give(|pending| pending.read_anew = true);
    }

    pub(crate) fn answer_invite(&self, answer: Result<(), Refusal>) {
        self.give(|pending| pending.invite = Some(answer));
    }

    pub(crate) fn end(&self, end: End) {
        self.give(|pending| pending.end = Some(end));
    }

    /// Waits for the next order. Cancel safe: what was not taken stays.
    pub(crate) async fn given(&self) {
        self.shared.given.notified().await;
    }

    /// All that was ordered since the last time.
    pub(crate) fn take(&self) -> Pending {
        std::mem::take(&mut *self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn give(&self, order: impl FnOnce(&mut Pending)) {
        order(&mut self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.given.notify_one();
    }
}
