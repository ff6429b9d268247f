//! Gauges that are read off the node when `/metrics` is asked for.

use std::sync::Arc;

use isle_mesh::event::EventKind;
use isle_mesh::member::{Member, Standing};
use isle_mesh::mesh::Islands;
use isle_mesh::metrics::Counts;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::api::ready::State;

const STANDINGS: [Standing; 4] = [Standing::Alive, Standing::Suspect, Standing::Down, Standing::Left];
/// Roles with a series of their own; an embedder's are counted together, because strangers choose their names.
const ROLES: [&str; 4] = ["pieces", "intermediary", "bridge", "other"];

/// Sets the gauges of the table and of this node.
pub fn set(members: &[Arc<Member>], islands: &Islands, ready: State, event_streams: usize) {
    for standing in STANDINGS {
        let count = members.iter().filter(|member| member.standing == standing).count();
        gauge!("isle_mesh_members", "standing" => standing.as_str()).set(count as f64);
    }
    let alive = || members.iter().filter(|member| member.standing == Standing::Alive);
    for role in ROLES {
        let has = |member: &&Arc<Member>| {
            if role == "other" {
                member.record.roles.iter().any(|own| !ROLES.contains(&own.as_str()))
            } else {
                member.has_role(role)
            }
        };
        gauge!("isle_mesh_members_by_role", "role" => role).set(alive().filter(has).count() as f64);
    }
    let unreachable = alive().filter(|member| !member.reachable).count();
    gauge!("isle_mesh_members_unreachable").set(unreachable as f64);
    for (state, is_reachable) in [("reachable", true), ("unreachable", false)] {
        let count = islands.values().filter(|island| island.reachable == is_reachable).count();
        gauge!("isle_mesh_islands", "state" => state).set(count as f64);
    }
    gauge!("isle_ready").set(f64::from(u8::from(ready.is_ready())));
    gauge!("isle_draining").set(f64::from(u8::from(ready.draining.is_some())));
    gauge!("isle_event_streams").set(event_streams as f64);
    process();
}

/// Passes on what the mesh has counted itself.
pub fn export(counts: &Counts) {
    counter!("isle_mesh_datagrams_sent_total").absolute(counts.sent);
    counter!("isle_mesh_datagram_bytes_sent_total").absolute(counts.sent_bytes);
    counter!("isle_mesh_datagrams_unsent_total").absolute(counts.unsent);
    counter!("isle_mesh_datagrams_accepted_total").absolute(counts.machine.accepted);
    for (reason, count) in counts.refused() {
        counter!("isle_mesh_datagrams_refused_total", "reason" => reason.as_str()).absolute(count);
    }
    counter!("isle_mesh_suspicions_total").absolute(counts.machine.suspicions);
    counter!("isle_mesh_false_suspicions_total").absolute(counts.machine.false_suspicions);
    for (why, count) in [("late", counts.machine.late), ("many_silent", counts.machine.many_silent)] {
        counter!("isle_mesh_self_doubts_total", "why" => why).absolute(count);
    }
    counter!("isle_mesh_words_relayed_total").absolute(counts.machine.relayed);
    counter!("isle_mesh_far_words_refused_total").absolute(counts.machine.far_refused);
    counter!("isle_mesh_far_members_displaced_total").absolute(counts.machine.far_displaced);
    counter!("isle_mesh_islands_left_out_total").absolute(counts.machine.islands_left_out);
}

/// Counts a change of the table.
pub fn count(kind: EventKind) {
    counter!("isle_mesh_member_transitions_total", "to" => kind.as_str()).increment(1);
}

/// The process itself, under the names that Prometheus' own clients use; what cannot be read is left out.
fn process() {
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(descriptors.count() as f64);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    gauge!("process_max_fds").set(limit.map_or(f64::INFINITY, |limit| limit as f64));
    if let Some((_, after_name)) = read("stat").as_deref().and_then(|stat| stat.rsplit_once(')')) {
        // proc(5): the first field after the name is the third. USER_HZ is 100 on every Linux we run on.
        let field = |number: usize| after_name.split_whitespace().nth(number - 3)?.parse::<f64>().ok();
        if let (Some(user), Some(system)) = (field(14), field(15)) {
            gauge!("process_cpu_seconds_total").set((user + system) / 100.0);
        }
    }
    let status = read("status").unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok()
    };
    if let Some(resident) = number("VmRSS") {
        gauge!("process_resident_memory_bytes").set(resident * 1024.0);
    }
    if let Some(threads) = number("Threads") {
        gauge!("process_threads").set(threads);
    }
}

fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/self/{name}")).ok()
}

/// Says what each metric of this module is, and makes those with fixed labels appear before they first move.
pub fn describe() {
    describe_gauge!("isle_build_info", "Always 1; the labels say what runs");
    gauge!("isle_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    describe_gauge!("isle_mesh_members", "Members listed, this node included");
    describe_gauge!("isle_mesh_members_by_role", "Members alive, by what they do");
    describe_gauge!(
        "isle_mesh_members_unreachable",
        "Members alive that cannot be asked from here: not heard, or on an island without a way"
    );
    describe_gauge!("isle_mesh_islands", "Other islands, by whether there is a way to them");
    describe_gauge!("isle_ready", "1 when /readyz answers 200");
    describe_gauge!("isle_draining", "1 once this node has said that it stops");
    describe_gauge!("isle_event_streams", "Open /events streams");
    describe_counter!("isle_mesh_member_transitions_total", "Changes of the table, by what happened");
    describe_counter!("isle_mesh_datagrams_sent_total", "Datagrams given to the kernel");
    describe_counter!(
        "isle_mesh_datagram_bytes_sent_total",
        Unit::Bytes,
        "Payload of the datagrams given to the kernel"
    );
    describe_counter!("isle_mesh_datagrams_unsent_total", "Datagrams that the kernel did not take");
    describe_counter!("isle_mesh_datagrams_accepted_total", "Datagrams heard and acted upon");
    describe_counter!("isle_mesh_datagrams_refused_total", "Datagrams heard and not acted upon, and why");
    describe_counter!("isle_mesh_suspicions_total", "Members that fell silent for longer than their limit");
    describe_counter!("isle_mesh_false_suspicions_total", "Suspicions ended by an answer");
    describe_counter!(
        "isle_mesh_self_doubts_total",
        "Times this node believed nobody's silence for a second: its loop was late, or too many were silent"
    );
    describe_counter!("isle_mesh_words_relayed_total", "Words passed on for others");
    describe_counter!(
        "isle_mesh_far_words_refused_total",
        "Words of members of other islands refused: the table is full, and most of it came the same way"
    );
    describe_counter!(
        "isle_mesh_far_members_displaced_total",
        "Members of other islands dropped where the table is full: most of it came the same way"
    );
    describe_counter!(
        "isle_mesh_islands_left_out_total",
        "Times there was no room for another island, known or not: most of those there are came the same way"
    );
    describe_counter!(
        "isle_bridge_islands_left_out_total",
        "Times a bridge told nobody of an island that a link or another bridge spoke of: most came the same way"
    );
    describe_gauge!("process_open_fds", "Open file descriptors");
    describe_gauge!("process_max_fds", "Limit of open file descriptors");
    describe_gauge!("process_cpu_seconds_total", Unit::Seconds, "CPU time used");
    describe_gauge!("process_threads", "Threads");
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Memory in use");
    for kind in [
        EventKind::Joined,
        EventKind::Updated,
        EventKind::Draining,
        EventKind::Suspect,
        EventKind::Down,
        EventKind::Back,
        EventKind::Left,
        EventKind::Forgotten,
        EventKind::DuplicateKey,
    ] {
        counter!("isle_mesh_member_transitions_total", "to" => kind.as_str()).increment(0);
    }
}
