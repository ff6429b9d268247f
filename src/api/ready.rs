//! `/readyz`: whether this node should be asked, and if not, why.

use crate::api::view::{CheckView, ReadyView};

/// What readiness depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// The table was fetched, or nobody answered: what we know is all there is to know.
    pub complete: bool,
    /// We said that we stop.
    pub draining: bool,
}

impl State {
    /// Whether requests should be sent here.
    #[must_use]
    pub fn is_ready(self) -> bool {
        self.complete && !self.draining
    }

    /// As served; the checks only when asked for, or when one failed.
    #[must_use]
    pub fn view(self, verbose: bool) -> ReadyView {
        let check = |check: &str, ok: bool, reason: &str, advice: &str| CheckView {
            check: check.to_owned(),
            ok,
            reason: (!ok).then(|| reason.to_owned()),
            advice: (!ok).then(|| advice.to_owned()),
        };
        let checks = vec![
            check(
                "table-complete",
                self.complete,
                "fetching-table",
                "Wait a second; if it stays, run isle doctor on this host.",
            ),
            check("not-draining", !self.draining, "draining", "Ask another node; see isle members."),
        ];
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
        assert_eq!(
            serde_json::to_string(&State { complete: true, draining: false }.view(false)).unwrap(),
            "{\"ready\":true}"
        );
        let view = State { complete: false, draining: true }.view(false);
        assert!(!view.ready);
        let reasons: Vec<_> = view.checks.iter().filter_map(|check| check.reason.as_deref()).collect();
        assert_eq!(reasons, ["fetching-table", "draining"]);
        let all_well = State { complete: true, draining: false }.view(true);
        assert!(all_well.checks.iter().all(|check| check.ok && check.advice.is_none()));
    }
}
