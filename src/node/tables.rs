//! Fetches other members' tables over HTTP: the mesh says where and when, this is how.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use isle_mesh::mesh::{BoxFuture, FetchError, TableFetch};
use isle_mesh::transfer::TRANSFER_BYTES_MAX;
use tokio::net::TcpStream;

use crate::http::hosts::host_of;

/// One connection for each fetch: they are rare.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tables;

impl TableFetch for Tables {
    fn fetch(&self, at: SocketAddr) -> BoxFuture<Result<Bytes, FetchError>> {
        Box::pin(records(at, "/mesh/records".to_owned()))
    }

    fn fetch_far(&self, at: SocketAddr, instance: u64, since: u64) -> BoxFuture<Result<Bytes, FetchError>> {
        Box::pin(records(at, format!("/mesh/records?instance={instance}&since={since}")))
    }
}

/// `GET` of this path at `at`. The caller sets the deadline; dropping the future closes the connection.
async fn records(at: SocketAddr, path: String) -> Result<Bytes, FetchError> {
    get(at, &path).await.map_err(|error| FetchError(format!("{error:#}")))
}

async fn get(at: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(header::HOST, host_of(at)).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let mut answer = sender.send_request(request).await?;
        anyhow::ensure!(answer.status() == StatusCode::OK, "answered {}", answer.status());
        let mut body = BytesMut::new();
        while let Some(frame) = answer.frame().await {
            if let Ok(data) = frame?.into_data() {
                anyhow::ensure!(body.len() + data.len() <= TRANSFER_BYTES_MAX, "longer than any table");
                body.extend_from_slice(&data);
            }
        }
        Ok(body.freeze())
    };
    // The connection moves the bytes; it is over when the exchange is, or broke before it.
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        body = &mut exchange => body,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}
