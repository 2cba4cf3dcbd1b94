//! Sockets to listen on, and who is at the other end of a connection.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::tls::{Secured, Tls};

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Tls(SocketAddr, Arc<Secured>),
    /// A process of this machine; what the kernel says about it.
    Unix {
        pid: Option<i32>,
        uid: u32,
    },
}

impl Peer {
    /// What an event's `sourceIPAddress` is when the sender left it out. A process at the unix socket is on this machine, and readers
    /// of CloudTrail expect an address there, so it is named by the loopback address.
    pub fn source_ip(&self) -> IpAddr {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => address.ip().to_canonical(),
            Self::Unix { .. } => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    /// What its TLS came to, if it has any.
    pub fn tls(&self) -> Option<&Arc<Secured>> {
        match self {
            Self::Tls(_, secured) => Some(secured),
            Self::Tcp(_) | Self::Unix { .. } => None,
        }
    }

    /// The same, behind its handshake.
    pub(super) fn secured(self, secured: Secured) -> Self {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => Self::Tls(address, Arc::new(secured)),
            Self::Unix { .. } => self,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => write!(f, "{address}"),
            Self::Unix {
                pid: Some(pid),
                uid,
            } => write!(f, "unix:pid={pid},uid={uid}"),
            Self::Unix { pid: None, uid } => write!(f, "unix:uid={uid}"),
        }
    }
}

/// Why a listener could not be had, with the key that asked for it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "cannot listen on {address} ({key}): the address is in use\n  hint: is another traild running? stop it, or set {key} to a free address"
    )]
    InUse { key: &'static str, address: String },
    #[error("cannot listen on {address} ({key}): {source}\n  hint: {hint}")]
    Io {
        key: &'static str,
        address: String,
        hint: &'static str,
        source: io::Error,
    },
}

impl BindError {
    fn new(key: &'static str, address: String, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => return Self::InUse { key, address },
            io::ErrorKind::AddrNotAvailable => "the address is none of this machine's",
            io::ErrorKind::PermissionDenied => {
                "choose a port above 1023 or a directory this user may write to"
            }
            io::ErrorKind::NotFound => "create the directory of the socket first",
            _ => "choose another address",
        };
        Self::Io {
            key,
            address,
            hint,
            source,
        }
    }
}

/// A bound socket. The file of a unix socket is removed when the listener is dropped.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, Tls),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// `key` is the configuration key that asks for it, for the error.
    pub async fn bind_tcp(key: &'static str, address: SocketAddr) -> Result<Self, BindError> {
        // Tokio sets SO_REUSEADDR, so that a restart need not wait for old connections to be forgotten.
        let bound = TcpListener::bind(address).await;
        bound
            .map(Self::Tcp)
            .map_err(|error| BindError::new(key, address.to_string(), error))
    }

    /// The same socket, with TLS. A unix socket stays plain: nobody can listen in on it.
    pub fn with_tls(self, tls: Tls) -> Self {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => Self::Tls(listener, tls),
            Self::Unix(..) => self,
        }
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Tls(_, tls) => Some(tls),
            Self::Tcp(_) | Self::Unix(..) => None,
        }
    }

    /// Owner and group may connect (mode 0660). A socket left behind by a dead process is replaced, one in use is not.
    pub async fn bind_unix(key: &'static str, path: &Path) -> Result<Self, BindError> {
        let failed = |error| BindError::new(key, path.display().to_string(), error);
        remove_stale(path).await.map_err(failed)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = SocketFile(path.to_owned());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        Ok(Self::Unix(listener, file))
    }

    /// The address that was bound: with port 0 asked, the port that was given.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => {
                let (stream, address) = listener.accept().await?;
                // Answers are small and complete: waiting to fill a packet only delays them. It cannot matter if it fails.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred()?;
                Ok((
                    Stream::Unix(stream),
                    Peer::Unix {
                        pid: credentials.pid(),
                        uid: credentials.uid(),
                    },
                ))
            }
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_) | Self::Tls(..) => {
                let scheme = self.tls().map_or("http", |_| "https");
                match self.local_addr() {
                    Some(address) => write!(f, "{scheme}://{address}"),
                    None => write!(f, "{scheme}://?"),
                }
            }
            Self::Unix(_, SocketFile(path)) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Removes a socket that nobody listens on. Anything else at the path stays, and binding will say so.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        _ => return Ok(()),
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
