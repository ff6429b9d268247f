//! What a bridge does for its host's user: links, keys, invites.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use island_bridge::bridge::{Bridge, Place};
use isle_mesh::member::MemberId;
use isle_mesh::mesh::Mesh;
use tracing::info;

use super::control::{self, Control, Obey, Reply, Request};
use super::invites::InviteBook;
use super::kept::KeptError;
use super::links;
use super::pins::Pins;
use super::token::{PLACES_MAX, Token};

/// An invite holds for a day at the most: whoever needs longer needs a key.
const EXPIRES_MAX: Duration = Duration::from_secs(24 * 3600);
/// And lets in so many.
const USES_MAX: u32 = 100;

/// The desk of a bridge.
pub(super) struct Desk {
    pub(super) dir: PathBuf,
    pub(super) bridge: Bridge,
    pub(super) pins: Pins,
    pub(super) invites: InviteBook,
    /// Keys of `--link` and `--allow`, and those that the program around us named.
    pub(super) given: Mutex<BTreeSet<MemberId>>,
    pub(super) mesh: OnceLock<Mesh>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Desk {
    /// Serves the socket until dropped. Without one nobody can ask; the bridge runs nevertheless.
    pub(super) async fn serve(self: Arc<Self>) {
        let dir = self.dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            // Entered by the runtime's threads, too.
            Control::open(&dir)
        });
        match opened.await {
            Ok(Ok(control)) => control.serve(self).await,
            Ok(Err(error)) => {
                tracing::warn!(dir = %self.dir.display(), %error, "no control socket: isle bridge links and isle invite do not work here")
            }
            Err(error) => tracing::warn!(%error, "no control socket"),
        }
        std::future::pending().await
    }

    /// Tells the mesh whose words on our own wire are to be ignored.
    pub(super) fn name_foreigners(&self) {
        if let Some(mesh) = self.mesh.get() {
            mesh.set_foreign(self.keys());
        }
    }

    /// The same, with one more key that is not kept.
    pub(super) fn name_foreigner(&self, key: MemberId) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.name_foreigners();
    }

    /// Keys that it links with.
    pub(super) fn keys(&self) -> BTreeSet<MemberId> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.iter().copied().chain(self.pins.keys()).collect()
    }

    async fn links(&self) -> Reply {
        let status = self.bridge.status().await;
        let island = self.mesh.get().map(Mesh::island).unwrap_or_default();
        let links = status.links.iter().map(|link| links::view(self.bridge.id(), &island, link)).collect();
        let refused = status.refused.iter();
        let refused = refused.map(|(key, why)| (key.to_string(), why.reason.as_str().to_owned())).collect();
        Reply::Links { links, refused }
    }

    async fn link(&self, text: &str) -> Reply {
        let target = match control::target(text) {
            Ok(target) => target,
            Err(why) => return Reply::failed(why, "give KEY@HOST:PORT, or an invite as a whole"),
        };
        if target.key == self.bridge.id() {
            return Reply::failed("that is this bridge's own key", "use it on the other side");
        }
        let (pins, kept) = (self.pins.clone(), target.clone());
        if let Err(error) = blocking(move || pins.link(&kept)).await {
            return error;
        }
        self.name_foreigners();
        let note = format!("{} is called from now on; see how it goes with: isle bridge links", target.key);
        self.bridge.link(target).await;
        Reply::Done { note }
    }

    async fn allow(&self, text: &str) -> Reply {
        let key = match control::key(text) {
            Ok(key) => key,
            Err(why) => return Reply::failed(why, "'isle key' prints it on the other side"),
        };
        let pins = self.pins.clone();
        if let Err(error) = blocking(move || pins.allow(key)).await {
            return error;
        }
        self.bridge.allow(key).await;
        self.name_foreigners();
        Reply::Done { note: format!("{key} may call from now on") }
    }

    async fn unlink(&self, text: &str) -> Reply {
        let status = self.bridge.status().await;
        let known: Vec<MemberId> = status.links.iter().map(|link| link.peer).collect();
        let meant: Vec<_> = known.iter().filter(|key| key.to_string().starts_with(text)).collect();
        let key = match (control::key(text), &*meant) {
            (Ok(key), _) => key,
            (Err(_), [key]) => **key,
            (Err(_), []) => return Reply::failed(format!("no link with {text}"), "see: isle bridge links"),
            (Err(_), _) => {
                return Reply::failed(format!("several keys begin with {text}"), "give more of it");
            }
        };
        let (pins, book) = (self.pins.clone(), self.invites.clone());
        if let Err(error) = blocking(move || book.disown(&key).and_then(|()| pins.unlink(&key))).await {
            return error;
        }
        let was_there = self.bridge.unlink(key).await;
        let returns = self.given.lock().unwrap_or_else(PoisonError::into_inner).contains(&key);
        let note = match (was_there, returns) {
            (false, _) => return Reply::failed(format!("no link with {key}"), "see: isle bridge links"),
            (true, true) => {
                format!("{key} is unlinked until the next start: it is named by --link or --allow")
            }
            (true, false) => format!("{key} is unlinked"),
        };
        Reply::Done { note }
    }

    async fn invite(&self, expires: Duration, uses: u32, places: &[String]) -> Reply {
        if expires.is_zero() || expires > EXPIRES_MAX || !(1..=USES_MAX).contains(&uses) {
            return Reply::failed(
                format!("an invite holds for 1s to 24h and for 1 to {USES_MAX} uses"),
                "for longer, allow the other side's key: isle bridge --allow KEY",
            );
        }
        let places = match control::places(places) {
            Ok(places) if places.is_empty() => self.own_places(),
            Ok(places) => places,
            Err(why) => return Reply::failed(why, "name where this bridge is reached: --address HOST:PORT"),
        };
        if places.is_empty() || places.len() > PLACES_MAX {
            let why = format!("{} addresses to give away, 1 to {PLACES_MAX} are possible", places.len());
            return Reply::failed(why, "name where this bridge is reached: --address HOST:PORT");
        }
        let book = self.invites.clone();
        let made = tokio::task::spawn_blocking(move || book.make(expires, uses)).await;
        match made {
            Ok(Ok((invite, secret))) => {
                info!(invite = invite.id, uses, "invite made");
                let token = Token { key: self.bridge.id(), secret, expires: invite.expires, places };
                Reply::Token { id: invite.id, token: token.to_string() }
            }
            Ok(Err(error)) => Reply::failed(error, "take some back: isle invite revoke ID"),
            Err(error) => Reply::failed(error, "try again"),
        }
    }

    /// Where others may call, as far as we know: what we announce to our own island, loopback only for want of others.
    /// Link-local addresses mean nothing elsewhere.
    fn own_places(&self) -> Vec<Place> {
        let Some(mesh) = self.mesh.get() else { return Vec::new() };
        let bound = self.bridge.addr();
        if !bound.ip().is_unspecified() {
            return vec![place(bound)];
        }
        let me = mesh.me();
        let (local, others): (Vec<_>, Vec<_>) = me
            .record
            .addresses
            .iter()
            .map(|address| address.ip)
            .filter(|ip| !is_link_local(*ip))
            .partition(|ip| ip.is_loopback());
        let ips = if others.is_empty() { local } else { others };
        ips.into_iter().take(PLACES_MAX).map(|ip| place(SocketAddr::new(ip, bound.port()))).collect()
    }

    async fn revoke(&self, id: String) -> Reply {
        let (book, named) = (self.invites.clone(), id.clone());
        match tokio::task::spawn_blocking(move || book.revoke(&named)).await {
            Ok(Ok(true)) => Reply::Done { note: format!("invite {id} lets nobody in any more") },
            Ok(Ok(false)) => Reply::failed(format!("no invite {id}"), "see: isle invite list"),
            Ok(Err(error)) => Reply::failed(error, "look at the state directory"),
            Err(error) => Reply::failed(error, "try again"),
        }
    }
}

impl Obey for Desk {
    async fn obey(&self, request: Request) -> Reply {
        match request {
            Request::Links => self.links().await,
            Request::Link { target } => self.link(&target).await,
            Request::Allow { key } => self.allow(&key).await,
            Request::Unlink { key } => self.unlink(&key).await,
            Request::Invite { expires_s, uses, places } => {
                self.invite(Duration::from_secs(expires_s), uses, &places).await
            }
            Request::Invites => Reply::Invites { invites: self.invites.all() },
            Request::Revoke { id } => self.revoke(id).await,
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn place(at: SocketAddr) -> Place {
    Place { host: at.ip().to_string(), port: at.port() }
}

async fn blocking(work: impl FnOnce() -> Result<(), KeptError> + Send + 'static) -> Result<(), Reply> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            Err(Reply::failed(error, "it would be forgotten at the next start: look at the state directory"))
        }
        Err(error) => Err(Reply::failed(error, "try again")),
    }
}
