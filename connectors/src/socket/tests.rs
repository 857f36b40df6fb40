//! Both ends on loopback, the peer's by hand; time stands still but where a test moves it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use millstream_runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};
use millstream_runtime::time::Timestamp;

use socket2::SockRef;

use super::connection::{Connection, KEEP_ALIVE, PeerLimits};
use super::{SocketCounter, SocketCounts, SocketError, SocketLines, SocketListener};
use crate::newest::Replaced;
use crate::pace::tests::StillClock;

/// A source, its reader, and what was read.
struct Reading<S> {
    source: S,
    reader: Box<dyn Reader<String>>,
    lines: Vec<String>,
    end: Option<u64>,
    ended: bool,
}

impl<S: Source<Out = String>> Reading<S> {
    fn of(source: S) -> Self {
        let reader = open(&source, None);
        Self { source, reader, lines: Vec::new(), end: None, ended: false }
    }

    fn poll(&mut self, limit: usize) -> Polled {
        let mut batch = Batch::default();
        let polled = self.reader.poll(&mut batch, limit).unwrap();
        assert!(batch.records.len() <= limit);
        self.lines.extend(batch.records.into_iter().map(|record| record.value));
        self.end = batch.end.as_u64();
        self.ended = polled == Polled::End;
        polled
    }

    /// Polls until it is so. Each poll waits for the sockets, so this is no race with the system.
    #[track_caller]
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            if is_so(self) {
                return;
            }
            self.poll(256);
        }
        panic!("never came: {what}; read {:?}", self.lines);
    }

    #[track_caller]
    fn until_lines(&mut self, wanted: &[&str]) {
        self.until("lines", |reading| reading.lines.len() >= wanted.len());
        assert_eq!(std::mem::take(&mut self.lines), wanted);
    }
}

fn open<S: Source<Out = String>>(source: &S, from: Option<u64>) -> Box<dyn Reader<String>> {
    source.reader(&source.splits().unwrap()[0], from.map(Position::from_u64).as_ref()).unwrap()
}

fn bound() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn call(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()
}

/// A listener under a clock that stands still, and its port.
fn listening(with: impl FnOnce(SocketListener) -> SocketListener) -> (Reading<SocketListener>, Arc<StillClock>, u16) {
    let (listener, port) = bound();
    let clock = Arc::new(StillClock::default());
    let source = with(SocketListener::on(listener).clock(clock.clone()));
    (Reading::of(source), clock, port)
}

fn counts(reading: &Reading<SocketListener>) -> SocketCounts {
    reading.source.counter().counts()
}

fn is_closed(peer: &mut TcpStream) -> bool {
    match peer.read(&mut [0; 8]) {
        Ok(0) => true,
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted),
        Ok(_) => false,
    }
}

#[test]
fn lines_of_a_peer_come_in_order_and_those_that_are_none_are_counted() {
    let (mut reading, _, port) = listening(|source| source.max_line_bytes(5));
    let (mut one, mut two) = (call(port), call(port));
    one.write_all(b"first\r\nsecond\n").unwrap();
    reading.until_lines(&["first"]);
    two.write_all(b"\xff\nother\n").unwrap();
    reading.until_lines(&["other"]);
    one.write_all(b"x\nha").unwrap();
    reading.until_lines(&["x"]);
    assert_eq!(reading.end, Some(3));
    drop(one);
    reading.until("the end of a peer", |reading| counts(reading).open == 1);
    let expected = SocketCounts {
        lines: 3,
        connections: 2,
        open: 1,
        partial_lines: 1,
        too_long_lines: 1,
        invalid_lines: 1,
        ..SocketCounts::default()
    };
    assert_eq!(counts(&reading), expected);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_the_others_do_not_notice() {
    let (mut reading, _, port) = listening(|source| source.max_connections(2));
    let (mut one, mut two) = (call(port), call(port));
    reading.until("two", |reading| counts(reading).open == 2);
    let mut refused = call(port);
    reading.until("a refusal", |reading| counts(reading).refused == 1);
    assert!(is_closed(&mut refused));
    one.write_all(b"one\n").unwrap();
    reading.until_lines(&["one"]);
    drop(one);
    reading.until("room", |reading| counts(reading).open == 1);
    call(port).write_all(b"three\n").unwrap();
    reading.until_lines(&["three"]);
    two.write_all(b"two\n").unwrap();
    reading.until_lines(&["two"]);
}

#[test]
fn connections_of_one_address_beyond_its_limit_are_closed_and_other_addresses_do_not_notice() {
    let (mut reading, _, port) = listening(|source| source.max_connections(3).max_connections_per_address(2));
    let from = |host: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into()).unwrap();
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
        TcpStream::from(socket)
    };
    let (one, _two) = (from(2), from(2));
    reading.until("two of one address", |reading| counts(reading).open == 2);
    assert!(is_closed(&mut {
        let refused = from(2);
        reading.until("a refusal", |reading| counts(reading).refused_address == 1);
        refused
    }));
    let mut other = from(3);
    other.write_all(b"other\n").unwrap();
    reading.until_lines(&["other"]);
    // The bound of all connections comes first.
    let _refused = from(2);
    reading.until("a refusal of all", |reading| counts(reading).refused == 1);
    drop(one);
    reading.until("room", |reading| counts(reading).open == 2);
    from(2).write_all(b"again\n").unwrap();
    reading.until_lines(&["again"]);
    assert_eq!(counts(&reading).refused_address, 1);
}

#[test]
fn the_system_asks_peers_on_both_sides_whether_they_are_there() {
    let (listener, port) = bound();
    let called = call(port);
    let accepted = listener.accept().unwrap().0;
    let limits = PeerLimits { line_bytes: 1, idle: Duration::MAX, line_time: Duration::MAX };
    for stream in [called, accepted] {
        stream.set_nonblocking(true).unwrap();
        let stream = mio::net::TcpStream::from_std(stream);
        let mut connection = Connection::new(stream, limits, SocketCounter::default(), Timestamp::MIN);
        let socket = SockRef::from(&*connection.stream());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEP_ALIVE);
    }
}

#[test]
fn a_silent_peer_is_closed_and_one_that_speaks_is_not() {
    let (mut reading, clock, port) = listening(|source| source.idle_timeout(Duration::from_secs(60)));
    let (mut silent, mut speaking) = (call(port), call(port));
    reading.until("both", |reading| counts(reading).open == 2);
    clock.advance(Duration::from_secs(59));
    speaking.write_all(b"here\n").unwrap();
    reading.until_lines(&["here"]);
    clock.advance(Duration::from_secs(1));
    reading.until("the silent one's end", |reading| counts(reading).silent == 1);
    assert!(is_closed(&mut silent));
    // What came while nobody polled is read before anybody is called silent.
    speaking.write_all(b"there\n").unwrap();
    clock.advance(Duration::from_secs(600));
    reading.until_lines(&["there"]);
    assert_eq!((counts(&reading).open, counts(&reading).silent), (1, 1));
}

#[test]
fn a_peer_that_takes_too_long_over_a_line_is_closed() {
    let (mut reading, clock, port) = listening(|source| source.line_timeout(Duration::from_secs(10)));
    let mut slow = call(port);
    slow.write_all(b"whole\nh").unwrap();
    reading.until_lines(&["whole"]);
    for _ in 0..3 {
        clock.advance(Duration::from_secs(3));
        slow.write_all(b"a").unwrap();
        reading.poll(1);
    }
    assert_eq!(counts(&reading).slow, 0);
    clock.advance(Duration::from_secs(1));
    reading.until("its end", |reading| counts(reading).slow == 1);
    assert!(is_closed(&mut slow));
    assert_eq!((counts(&reading).partial_lines, counts(&reading).open), (1, 0));
}

#[test]
fn holds_back_a_peer_whose_lines_nobody_takes_and_loses_none() {
    let (mut reading, _, port) = listening(|source| source);
    let mut peer = call(port);
    reading.until("the peer", |reading| counts(reading).open == 1);
    peer.set_nonblocking(true).unwrap();
    // Only the system's buffers take anything: they end.
    let (line, mut sent) = ([&[b'x'; 1_023][..], b"\n"].concat(), 0);
    while let Ok(length) = peer.write(&line[sent % line.len()..]) {
        sent += length;
        assert!(sent < 1 << 30, "nothing holds the peer back");
    }
    assert_eq!(counts(&reading).lines, 0);
    // One line at a time is taken, and no more than a chunk is read for it.
    assert_eq!(reading.poll(1), Polled::More);
    assert_eq!(counts(&reading).lines, 1);
    reading.until("all of them", |reading| reading.lines.len() == sent / line.len());
    assert!(reading.lines.iter().all(|read| read.len() == 1_023));
}

#[test]
fn connections_and_their_begun_lines_outlive_an_attempt() {
    let (mut reading, _, port) = listening(|source| source);
    let mut peer = call(port);
    peer.write_all(b"one\ntwo\nthr").unwrap();
    reading.until("two lines", |reading| reading.lines.len() == 2);
    let newer = open(&reading.source, Some(1));
    let mut older = std::mem::replace(&mut reading.reader, newer);
    assert!(older.poll(&mut Batch::default(), 1).unwrap_err().is::<Replaced>());
    reading.lines.clear();
    peer.write_all(b"ee\n").unwrap();
    reading.until_lines(&["three"]);
    assert_eq!((reading.end, counts(&reading).open), (Some(2), 1));
}

#[test]
fn gives_records_the_time_of_their_arrival_when_it_is_told_to() {
    let (reading, clock, port) = listening(|source| source.arrival_times());
    clock.advance(Duration::from_secs(7));
    call(port).write_all(b"now\n").unwrap();
    let (mut reader, mut batch) = (reading.reader, Batch::default());
    while batch.records.is_empty() {
        reader.poll(&mut batch, 1).unwrap();
    }
    assert_eq!(batch.records[0].time, Timestamp::from_millis(7_000));
}

/// A client under a clock that stands still, and the server that it calls.
fn calling(with: impl FnOnce(SocketLines) -> SocketLines) -> (Reading<SocketLines>, Arc<StillClock>, TcpListener) {
    let (listener, port) = bound();
    let clock = Arc::new(StillClock::default());
    let source = with(SocketLines::connect(format!("localhost:{port}")).clock(clock.clone()));
    let mut reading = Reading::of(source);
    reading.until("the call", |reading| reading.source.counter().counts().open == 1);
    (reading, clock, listener)
}

#[test]
fn a_client_calls_again_after_a_pause_when_its_server_is_gone() {
    let (mut reading, clock, listener) = calling(|source| source);
    let mut server = listener.accept().unwrap().0;
    server.write_all(b"one\nlost").unwrap();
    reading.until_lines(&["one"]);
    drop(server);
    reading.until("the loss", |reading| reading.source.counter().counts().open == 0);
    assert_eq!(reading.source.counter().counts().partial_lines, 1);
    // The clock stands still, so the pause is not over however often it polls.
    reading.poll(1);
    assert_eq!(reading.source.counter().counts().connections, 1);
    clock.advance(Duration::from_millis(100));
    reading.until("the second call", |reading| reading.source.counter().counts().open == 1);
    listener.accept().unwrap().0.write_all(b"two\n").unwrap();
    reading.until_lines(&["two"]);
    assert_eq!(reading.end, Some(2));
}

#[test]
fn a_client_ends_with_its_server_when_it_is_told_to() {
    let (mut reading, _, listener) = calling(SocketLines::end_with_peer);
    listener.accept().unwrap().0.write_all(b"one\ntwo\n").unwrap();
    reading.until("the end", |reading| reading.ended);
    assert_eq!(reading.lines, ["one", "two"]);
    assert_eq!(reading.poll(1), Polled::End);
}

#[test]
fn a_client_that_hears_nothing_for_too_long_calls_again() {
    let (mut reading, clock, listener) = calling(|source| source.idle_timeout(Duration::from_secs(30)));
    let mut silent = listener.accept().unwrap().0;
    clock.advance(Duration::from_secs(30));
    reading.until("the loss", |reading| reading.source.counter().counts().silent == 1);
    assert!(is_closed(&mut silent));
    clock.advance(Duration::from_secs(1));
    reading.until("the second call", |reading| reading.source.counter().counts().open == 1);
}

#[test]
fn a_client_gives_up_when_it_was_told_to_and_tries_for_that_long() {
    let (listener, port) = bound();
    drop(listener);
    let clock = Arc::new(StillClock::default());
    let source = SocketLines::connect(format!("127.0.0.1:{port}")).give_up_after(Duration::from_secs(3));
    let mut reader = open(&source.clock(clock.clone()), None);
    let mut polls = 0;
    let error = loop {
        match reader.poll(&mut Batch::default(), 1) {
            Ok(polled) => assert_eq!(polled, Polled::Idle),
            Err(error) => break error,
        }
        clock.advance(Duration::from_millis(100));
        polls += 1;
    };
    assert!(polls >= 30, "it gave up after {polls} polls");
    let SocketError::Unreachable { down, source, .. } = error.downcast_ref().unwrap() else { panic!("{error}") };
    assert!(*down >= Duration::from_secs(3) && source.kind() == ErrorKind::ConnectionRefused, "{error}");
}

#[test]
fn refuses_positions_of_other_sources() {
    let source = SocketLines::connect("localhost:1");
    assert!(source.reader(&SplitId::new("feed"), None).is_err());
    let position = Position::from_bytes(vec![1]).unwrap();
    assert!(source.reader(&source.splits().unwrap()[0], Some(&position)).is_err());
}
