//! How foca is configured, and how long each death is given before the next.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use foca::{Config, PeriodicParams};

/// One configuration of foca.
pub(crate) struct Tuning {
    /// What it is called in the report, after foca's version.
    pub(crate) name: &'static str,
    pub(crate) config: Config,
    /// From one crash to the next: longer than the slowest observer was seen to take with 1,000 members.
    pub(crate) crash_window: Duration,
    /// The same of those who leave.
    pub(crate) leave_window: Duration,
}

impl Tuning {
    /// As foca comes: `Config::new_lan`, which takes its numbers from memberlist's defaults for a LAN.
    pub(crate) fn lan(members: u32) -> Self {
        let config = Config::new_lan(NonZeroU32::new(members).expect("an island has members"));
        let window = Duration::from_secs;
        Self { name: "lan", config, crash_window: window(20), leave_window: window(3) }
    }

    /// As quick as it was found to be without wrong words at 5 % loss.
    ///
    /// `notify_down_members` is off: in 2.0.0 it tells members whose refutation was heard in time that they are down
    /// (`Timer::ChangeSuspectToDown` sends `TurnUndead` whether or not the suspicion still stood), and these then
    /// come back under another identity.
    pub(crate) fn fast(members: u32) -> Self {
        let mut tuning = Self::lan(members);
        tuning.name = "fast";
        tuning.config.probe_period = Duration::from_millis(200);
        tuning.config.probe_rtt = Duration::from_millis(60);
        tuning.config.suspect_to_down_after = Duration::from_millis(500);
        tuning.config.periodic_gossip = Some(PeriodicParams {
            frequency: Duration::from_millis(50),
            num_members: NonZeroUsize::new(4).expect("4 is not zero"),
        });
        tuning.config.notify_down_members = false;
        tuning.crash_window = Duration::from_secs(3);
        tuning.leave_window = Duration::from_secs(1);
        tuning
    }
}
