//! Whom a command asks, and how it tells that nobody answered.

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use isle_mesh::find::{self, FindOptions};
use tokio::time::timeout;

use crate::cli::arguments::Ask;
use crate::cli::client::{AskError, Client};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::note;

/// Port of the intermediary of this host.
const LOCAL_PORT: u16 = 5235;
/// After which a person is told what is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

/// The node that `ask` names; else the intermediary of this host; else one that broadcast finds.
///
/// # Errors
/// There is none.
pub async fn node(ask: &Ask) -> Result<Client, Failure> {
    if let Some(url) = ask.at.as_deref().filter(|url| !url.is_empty()) {
        return Client::at(url).map_err(|error| Failure::of(Exit::Usage, &error));
    }
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, LOCAL_PORT)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, LOCAL_PORT)),
    ] {
        let client = Client::of(address);
        if client.is_there().await {
            return Ok(client);
        }
    }
    let options = FindOptions {
        mesh: ask.mesh.clone(),
        discovery_port: ask.discovery_port,
        interfaces: ask.interface.clone(),
        ..FindOptions::default()
    };
    let found = patiently("an intermediary to answer", find::intermediaries(&options)).await;
    let found = found.map_err(|error| Failure::of(Exit::Failed, &error))?;
    for found in &found {
        let client = Client::of(found.http);
        if client.is_there().await {
            return Ok(client);
        }
    }
    Err(nobody(ask, options.wait, found.first().map(|found| found.http)))
}

/// Nobody answered; or somebody did over UDP who cannot be reached over TCP.
fn nobody(ask: &Ask, waited: Duration, found: Option<SocketAddr>) -> Failure {
    if let Some(address) = found {
        return Failure::new(
            Exit::Failed,
            format!("{address} says it is an intermediary, but takes no connection"),
        )
        .advise("a firewall may be between: check TCP from here with: isle status --at http://HOST:5235");
    }
    let on =
        if ask.interface.is_empty() { String::new() } else { format!(" on {}", ask.interface.join(", ")) };
    let mesh = if ask.mesh == "isle" { String::new() } else { format!(" of mesh {}", ask.mesh) };
    let waited = waited.as_secs();
    Failure::new(Exit::Failed, format!("no intermediary{mesh} answered within {waited} s{on}"))
        .advise("start one with: isle up      or name one with: --at http://HOST:5235")
}

/// Waits; when it takes long, says for what.
pub async fn patiently<T>(what: &str, answer: impl Future<Output = T>) -> T {
    let mut answer = std::pin::pin!(answer);
    match timeout(PATIENCE, &mut answer).await {
        Ok(answer) => answer,
        Err(_) => {
            note(&format!("waiting for {what} …"));
            answer.await
        }
    }
}

/// What went wrong, and what to do about it.
#[must_use]
pub fn failed(error: &AskError) -> Failure {
    let failure = Failure::of(Exit::Failed, error);
    match error {
        AskError::Problem { problem, .. } => match &problem.advice {
            Some(advice) => failure.advise(advice.clone()),
            None => failure,
        },
        AskError::NotAnAddress(_) => Failure { exit: Exit::Usage, ..failure },
        AskError::Unknown { .. } => failure.advise("give an address instead: --at http://192.168.1.20:5235"),
        AskError::Unreachable { authority, .. } => failure
            .advise(format!("is a node running there? On its host: isle status --at http://{authority}")),
        AskError::Ended { .. } | AskError::Broken { .. } | AskError::Late { .. } => {
            failure.advise("try again; see who is there with: isle members")
        }
        AskError::Strange { .. } => {
            failure.advise("is it another program? Name a node with: --at http://HOST:PORT")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::Told;

    #[test]
    fn a_problem_is_passed_on_with_what_to_do() {
        let problem = Told {
            detail: "share 2/3 is missing".into(),
            advice: Some("see isle explain a".into()),
            ..Told::default()
        };
        let failure = failed(&AskError::Problem { authority: "a:1".into(), problem: Box::new(problem) });
        assert_eq!(failure.to_string(), "isle: share 2/3 is missing\n  see isle explain a");
        assert_eq!(failure.exit, Exit::Failed);
    }

    #[test]
    fn an_address_that_is_none_is_wrong_use() {
        assert_eq!(failed(&AskError::NotAnAddress("x y".into())).exit, Exit::Usage);
    }
}
