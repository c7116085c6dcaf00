//! The bytes of a connection, decrypted where it speaks TLS. What a client says first can be read ahead, which is how the
//! version of HTTP is known before anything serves it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, Take};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::governor::Governor;
use super::reads::{Reader, Reads};
use super::standing::Standing;
use super::turn::Turn;
use crate::edge::drains::Drain;
use crate::telemetry::{Eviction, Metrics, Port};

/// A connection to a port.
#[derive(Debug)]
pub(super) struct Stream {
    ahead: Vec<u8>,
    handed_on: usize,
    transport: Take<Transport>,
    reader: Option<Reader>,
    /// With it, bytes are sent only while the service is speaking, and the end of the connection is left to [`Stream::part`].
    turn: Option<Turn>,
    /// With it, a write that makes no progress for too long fails.
    patience: Option<Box<Patience>>,
    /// With it, a client that sends mostly framing is hung up on.
    governor: Option<Box<Governor>>,
}

/// How long a client may take nothing.
#[derive(Debug)]
struct Patience {
    time: Duration,
    /// While it takes nothing.
    ends: Option<Pin<Box<Sleep>>>,
    standing: Arc<Standing>,
    port: Port,
    metrics: Metrics,
}

impl Patience {
    fn bound<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            if self.ends.take().is_some() {
                self.standing.blocked(false);
            }
            return done;
        }
        let ends = self.ends.get_or_insert_with(|| {
            self.standing.blocked(true);
            Box::pin(sleep(self.time))
        });
        ready!(ends.as_mut().poll(context));
        self.metrics.evicted(self.port, Eviction::Stalled);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of the reply")))
    }
}

/// How much is read at once of what is thrown away, in bytes.
const DISCARDED: usize = 16 << 10;

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Stream::new(Transport::Plain(stream))
    }
}

impl From<TlsStream<TcpStream>> for Stream {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Stream::new(Transport::Tls(Box::new(stream)))
    }
}

impl Stream {
    fn new(transport: Transport) -> Stream {
        Stream {
            ahead: Vec::new(),
            handed_on: 0,
            transport: transport.take(u64::MAX),
            reader: None,
            turn: None,
            patience: None,
            governor: None,
        }
    }

    /// Reads no more at once than it may beside others.
    pub(super) fn beside(self, others: &Reads) -> Stream {
        Stream { reader: Some(others.reader()), ..self }
    }

    /// Fails once the client has taken nothing for so long of what is sent to it.
    pub(super) fn written_within(
        self,
        time: Duration,
        standing: &Arc<Standing>,
        port: Port,
        metrics: &Metrics,
    ) -> Stream {
        let patience = Patience { time, ends: None, standing: Arc::clone(standing), port, metrics: metrics.clone() };
        Stream { patience: Some(Box::new(patience)), ..self }
    }

    /// Takes note of what was sent.
    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(bytes)), Some(governor)) = (&written, &mut self.governor) {
            governor.sent(*bytes);
        }
        self.bound(context, written)
    }

    fn bound<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.patience {
            Some(patience) => patience.bound(context, done),
            None => done,
        }
    }

    /// Fails once the client has sent too many frames of HTTP/2 for what they carry.
    pub(super) fn governed(self) -> Stream {
        Stream { governor: Some(Box::new(Governor::new(Instant::now()))), ..self }
    }

    /// Looks at what was read.
    fn judge(&mut self, read: &[u8]) -> io::Result<()> {
        let (Some(governor), Some(patience)) = (&mut self.governor, &self.patience) else { return Ok(()) };
        if governor.permits(read, Instant::now()) {
            return Ok(());
        }
        patience.metrics.evicted(patience.port, Eviction::Flooding);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the client sends too many frames for what they carry"))
    }

    /// Sends nothing but what the service says.
    pub(super) fn in_turn(self, turn: &Turn) -> Stream {
        Stream { turn: Some(turn.clone()), ..self }
    }

    /// Reads `words` in place of what the client has sent so far, and sends again.
    pub(super) fn hearing(self, words: &[u8]) -> Stream {
        Stream { ahead: words.to_vec(), handed_on: 0, turn: None, ..self }
    }

    /// Says that nothing more will be sent, and drains what the client is still sending, if anything is to be, until it closes its
    /// side. A socket that is closed with unread bytes makes the client's system discard the reply.
    pub(super) async fn part(mut self, drain: Option<Drain>) -> io::Result<()> {
        let transport = self.transport.get_mut();
        transport.shutdown().await?;
        let Some(mut drain) = drain else { return Ok(()) };
        let mut room = vec![0; DISCARDED];
        loop {
            let length = tokio::select! {
                length = transport.read(&mut room) => length?,
                () = drain.given_up() => return Ok(()),
            };
            if length == 0 || !drain.passes(length).await {
                return Ok(());
            }
        }
    }

    fn may_send(&self) -> bool {
        self.turn.as_ref().is_none_or(Turn::may_send)
    }

    /// The certificate that the client sent, in DER.
    pub(super) fn client_certificate(&self) -> Option<&[u8]> {
        match self.transport.get_ref() {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => {
                stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|first| first.as_ref())
            }
        }
    }

    /// Reads ahead until the client has said `words` or something else, and returns whether it was these. None where it says
    /// nothing more.
    pub(super) async fn begins_with(&mut self, words: &[u8]) -> io::Result<Option<bool>> {
        while words.starts_with(&self.ahead) {
            if self.ahead.len() == words.len() {
                return Ok(Some(true));
            }
            let mut room = vec![0; words.len() - self.ahead.len()];
            match self.transport.get_mut().read(&mut room).await? {
                0 => return Ok(None),
                length => self.ahead.extend_from_slice(&room[..length]),
            }
        }
        Ok(Some(false))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        let Stream { ahead, handed_on, transport, reader, .. } = &mut *self;
        let again = room.remaining().min(ahead.len() - *handed_on);
        room.put_slice(&ahead[*handed_on..*handed_on + again]);
        *handed_on += again;
        if again > 0 && room.remaining() == 0 {
            return Poll::Ready(self.judge(&room.filled()[before..]));
        }
        let had = room.filled().len();
        let read = match reader {
            None => Pin::new(transport.get_mut()).poll_read(context, room),
            Some(reader) => {
                transport.set_limit(reader.most().saturating_sub(again) as u64);
                let read = Pin::new(transport).poll_read(context, room);
                if read.is_ready() {
                    reader.has_read(room.filled().len() - had);
                }
                read
            }
        };
        // What was read ahead goes with what follows it: who gets the few bytes alone makes a larger buffer for the rest.
        let read = if again > 0 && read.is_pending() { Poll::Ready(Ok(())) } else { read };
        ready!(read)?;
        Poll::Ready(self.judge(&room.filled()[before..]))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.may_send() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(self.transport.get_mut()).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.may_send() {
            return Poll::Ready(Ok(bytes.iter().map(|piece| piece.len()).sum()));
        }
        let written = Pin::new(self.transport.get_mut()).poll_write_vectored(context, bytes);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(self.transport.get_mut()).poll_flush(context);
        let flushed = self.bound(context, flushed);
        if let (Poll::Ready(Ok(())), Some(turn)) = (&flushed, &self.turn) {
            turn.sent();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.turn.is_some() {
            return Poll::Ready(Ok(()));
        }
        let ended = Pin::new(self.transport.get_mut()).poll_shutdown(context);
        self.bound(context, ended)
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, room),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, room),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_comes_with_what_follows_and_does_not_wait_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        for (sent, room, expected) in
            [("POST /a", 64, "POST /a"), ("POST /b", 4, "POST"), ("POST", 64, "POST"), ("PO", 64, "PO")]
        {
            let mut stream = Stream::from(listener.accept().await.unwrap().0);
            client.write_all(sent.as_bytes()).await.unwrap();
            assert_eq!(stream.begins_with(b"PRI").await.unwrap(), Some(false));
            let mut room = vec![0; room];
            let length = stream.read(&mut room).await.unwrap();
            assert_eq!(std::str::from_utf8(&room[..length]).unwrap(), expected);
            client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_one_of_many_reads_comes_in_smaller_pieces_and_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sent: Vec<u8> = (0..1_u32 << 16).flat_map(u32::to_le_bytes).collect();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.map(|(stream, address)| (Stream::from(stream), address)).unwrap();
        let sends = {
            let sent = sent.clone();
            tokio::spawn(async move { client.write_all(&sent).await })
        };
        assert_eq!(stream.begins_with(&[0; 4]).await.unwrap(), Some(true));
        let others = Reads::default();
        let mut busy: Vec<_> = (0..200).map(|_| others.reader()).collect();
        busy.iter_mut().for_each(|reader| reader.has_read(64 << 10));
        let mut stream = stream.beside(&others);
        let (mut got, mut most) = (Vec::new(), 0);
        while got.len() < sent.len() {
            let mut room = vec![0; 64 << 10];
            let length = stream.read(&mut room).await.unwrap();
            assert_ne!(length, 0);
            got.extend_from_slice(&room[..length]);
            most = most.max(length);
        }
        assert!(most < 32 << 10, "{most}");
        assert!(got == sent);
        sends.await.unwrap().unwrap();
    }
}
