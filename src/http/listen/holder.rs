//! Who listens on a TCP port of this host, from /proc. Best effort: it only makes a message better.

use std::fs;

/// State number of a listening socket in /proc/net/tcp.
const LISTEN: &str = "0A";

/// `NAME (pid N)`, or whose it is when the process cannot be seen; `None` when nobody is found.
pub(super) fn of_port(port: u16) -> Option<String> {
    let (inode, uid) = ["/proc/net/tcp6", "/proc/net/tcp"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .find_map(|table| table.lines().skip(1).find_map(|line| listener(line, port)))?;
    process_with(&inode).or_else(|| Some(format!("a process of the user with uid {uid}")))
}

/// Inode and owner of a line's socket, if it listens on `port`.
fn listener(line: &str, port: u16) -> Option<(String, String)> {
    // sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
    let fits = *columns.get(3)? == LISTEN && u16::from_str_radix(local_port, 16).ok()? == port;
    fits.then_some((columns.get(9)?.to_string(), columns.get(7)?.to_string()))
}

fn process_with(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        // Processes of others cannot be looked into, and some end while we look.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()));
        if holds {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            // A process can name itself as it likes; this goes to a terminal.
            let command: String = command.trim().chars().filter(|c| !c.is_control()).collect();
            return Some(format!("{command} (pid {pid})"));
        }
    }
    None
}
