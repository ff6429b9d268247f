//! `/readyz`: whether this node should be asked, and if not, why.

use std::time::Duration;

use crate::api::view::{CheckView, ReadyView, millis};

/// What readiness depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// How long we have been fetching the table; `None` when that is done, or nobody was there to fetch it
    /// from: what we know is all there is to know.
    pub fetching: Option<Duration>,
    /// How long ago we said that we stop.
    pub draining: Option<Duration>,
    /// The service beside this node.
    pub service: Service,
}

/// A service beside this node, whose figures it announces. While that is away they are withdrawn; all else goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Service {
    /// This node stands beside none.
    #[default]
    None,
    /// It accepts connections.
    There,
    /// It has not for so long.
    Away(Duration),
}

impl State {
    /// Whether requests should be sent here.
    #[must_use]
    pub fn is_ready(self) -> bool {
        self.fetching.is_none() && self.draining.is_none()
    }

    /// As served; the checks only when asked for, or when one failed.
    #[must_use]
    pub fn view(self, verbose: bool) -> ReadyView {
        let check = |check: &str, failing: Option<Duration>, reason: &str, advice: &str| CheckView {
            check: check.to_owned(),
            ok: failing.is_none(),
            since_ms: failing.map(millis),
            reason: failing.map(|_| reason.to_owned()),
            advice: failing.map(|_| advice.to_owned()),
        };
        let mut checks = vec![
            check(
                "table-complete",
                self.fetching,
                "fetching-table",
                "Wait a second; if it stays, see what is wrong with: isle status",
            ),
            check("not-draining", self.draining, "draining", "Ask another node; see isle members."),
        ];
        let away = match self.service {
            Service::Away(length) => Some(length),
            Service::None | Service::There => None,
        };
        if self.service != Service::None {
            let advice =
                "Start the service that --upstream names; its figures are announced again within a second.";
            checks.push(check("service-there", away, "upstream-away", advice));
        }
        ReadyView {
            ready: self.is_ready(),
            checks: if verbose || !self.is_ready() { checks } else { Vec::new() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ready_says_why_even_unasked() {
        let well = State::default();
        assert_eq!(serde_json::to_string(&well.view(false)).unwrap(), "{\"ready\":true}");
        let second = Some(Duration::from_secs(1));
        let view = State { fetching: second, draining: second, ..well }.view(false);
        assert!(!view.ready);
        let reasons: Vec<_> = view.checks.iter().filter_map(|check| check.reason.as_deref()).collect();
        assert_eq!(reasons, ["fetching-table", "draining"]);
        assert_eq!(view.checks[0].since_ms, Some(1000));
        assert!(well.view(true).checks.iter().all(|check| check.ok && check.advice.is_none()));
    }

    #[test]
    fn a_service_that_is_away_is_told_of_and_the_node_is_ready_for_all_else() {
        let away = State { service: Service::Away(Duration::from_secs(2)), ..State::default() };
        assert_eq!(serde_json::to_string(&away.view(false)).unwrap(), "{\"ready\":true}");
        let checks = away.view(true).checks;
        let failed: Vec<_> = checks.iter().filter(|check| !check.ok).map(|check| &*check.check).collect();
        assert_eq!(failed, ["service-there"]);
        assert_eq!(State { service: Service::There, ..away }.view(true).checks.len(), checks.len());
    }
}
