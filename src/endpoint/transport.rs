//! A layer around ureq's transports. It wipes their buffers, because ureq leaves sent and received
//! text there until they are reused or freed. It also works around four faults of ureq.

use std::cell::Cell;
use std::process;
use std::sync::Arc;
use std::time::Instant;

use ureq::Agent;
use ureq::config::Config;
use ureq::unversioned::transport::time::Duration;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};
use zeroize::Zeroize;

use crate::endpoint::resolve::Lookup;

thread_local! {
    static HAS_SENT_TOKEN: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Takes the record of whether this thread's last request had a token; `None` if there is no
/// record. The caller needs it because redirects drop the header, and ureq's error for a 401 does
/// not say so.
pub(crate) fn take_has_sent_token() -> Option<bool> {
    HAS_SENT_TOKEN.take()
}

/// The connector of API calls.
pub(super) type ApiTls = DefaultConnector;

/// An agent that leaves no plaintext in the buffers of its connections.
pub(super) fn agent(config: Config, connector: impl Connector<()>) -> Agent {
    // Last in the chain, so that the buffers that hold plaintext are the ones that are wiped.
    Agent::with_parts(config, connector.chain(Layer), Lookup)
}

/// ureq's connector with one TLS configuration for all requests. If a request has its own timeout,
/// ureq builds a new TLS configuration, because the request might have its own TLS settings too.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptTls(Arc<DefaultConnector>);

impl Connector<()> for KeptTls {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let mut addrs = details.resolver.empty();
        details.addrs.iter().for_each(|address| addrs.push(*address));
        let details = ConnectionDetails {
            request_level: false,
            addrs,
            uri: details.uri,
            config: details.config,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        self.0.connect(&details, chained)
    }
}

#[derive(Debug)]
struct Layer;

impl<In: Transport> Connector<In> for Layer {
    type Out = LayeredTransport<In>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let process = process::id();
        Ok(chained.map(|inner| LayeredTransport { inner, process, budget: None, used: 0 }))
    }
}

#[derive(Debug)]
struct LayeredTransport<In: Transport> {
    inner: In,
    /// The process that has opened the connection.
    process: u32,
    /// The last time-out that ureq has given, and its end.
    budget: Option<(Duration, Instant)>,
    /// An upper limit of the bytes used in the input buffer since it was wiped. Counts received
    /// bytes, and sent bytes too, because ureq reads a chunked body into this buffer before
    /// sending.
    used: usize,
}

impl<In: Transport> LayeredTransport<In> {
    /// Enforces a time-out that ureq starts again for each read, as it does while a proxy answers
    /// CONNECT byte by byte.
    fn bounded(&mut self, timeout: NextTimeout) -> Result<NextTimeout, ureq::Error> {
        let Duration::Exact(after) = timeout.after else { return Ok(timeout) };
        let now = Instant::now();
        let end = match self.budget {
            Some((same, end)) if same == timeout.after => end,
            _ => now.checked_add(after).unwrap_or(now),
        };
        self.budget = Some((timeout.after, end));
        let after = end.saturating_duration_since(now);
        if after.is_zero() {
            return Err(ureq::Error::Timeout(timeout.reason));
        }
        Ok(NextTimeout { after: Duration::Exact(after), ..timeout })
    }

    fn wipe_input(&mut self) {
        let buffers = self.inner.buffers();
        // With all input consumed, the whole buffer counts as free. All used bytes are among its
        // first `used` bytes.
        buffers.input_consume(buffers.input().len());
        let free = buffers.input_append_buf();
        let used = self.used.min(free.len());
        free[..used].zeroize();
        self.used = 0;
    }
}

impl<In: Transport> Transport for LayeredTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let output = &self.inner.buffers().output()[..amount];
        // Only the head of a request is searched, and not its body.
        let first_line = output.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let is_head = first_line.ends_with(b" HTTP/1.1");
        // Not of another scheme: ureq turns user info in a redirect's URL into `Basic`.
        let start = b"\r\nauthorization: Bearer ";
        let has_token = is_head.then(|| output.windows(start.len()).any(|part| part == start));
        let result = self.bounded(timeout).and_then(|t| self.inner.transmit_output(amount, t));
        self.inner.buffers().output()[..amount].zeroize();
        self.used = self.used.saturating_add(amount);
        // Set after the inner layers, because one of them may be the connection to a proxy.
        if has_token.is_some() {
            let _ = HAS_SENT_TOKEN.try_with(|record| record.set(has_token));
        }
        result
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = self.bounded(timeout)?;
        let before = self.inner.buffers().input().len();
        let result = self.inner.await_input(timeout);
        let received = self.inner.buffers().input().len().saturating_sub(before);
        self.used = self.used.saturating_add(received);
        result
    }

    /// Called right before ureq puts a connection into the pool, with all input consumed, and when
    /// it takes the connection out again.
    fn is_open(&mut self) -> bool {
        if self.inner.buffers().input().is_empty() {
            self.wipe_input();
        }
        self.budget = None;
        // A forked child must not use a connection of its parent.
        self.process == process::id() && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl<In: Transport> Drop for LayeredTransport<In> {
    fn drop(&mut self) {
        let buffers = self.inner.buffers();
        buffers.input_consume(buffers.input().len());
        // Wipes both buffers as a whole, because a body that was read and never sent may be
        // anywhere. That includes the part by which ureq has grown the input buffer. Skips zeroed
        // buffers, because looking costs a tenth of wiping.
        let (input, output) = buffers.tmp_and_output();
        for buffer in [input, output] {
            if buffer.iter().fold(0, |all, byte| all | byte) != 0 {
                buffer.zeroize();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ureq::unversioned::transport::LazyBuffers;

    use super::*;

    /// A connection that is always open.
    #[derive(Debug)]
    struct Open(LazyBuffers);

    impl Transport for Open {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.0
        }

        fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), ureq::Error> {
            Ok(())
        }

        fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
            Ok(true)
        }

        fn is_open(&mut self) -> bool {
            true
        }
    }

    fn transport(process: u32) -> LayeredTransport<Open> {
        let inner = Open(LazyBuffers::new(1, 1));
        LayeredTransport { inner, process, budget: None, used: 0 }
    }

    #[test]
    fn connection_of_another_process_is_not_used() {
        assert!(transport(process::id()).is_open());
        assert!(!transport(process::id() + 1).is_open());
    }

    #[test]
    fn time_out_that_starts_again_for_each_read_ends() {
        let mut transport = transport(process::id());
        let timeout = |millis| NextTimeout {
            after: Duration::from_millis(millis),
            reason: ureq::Timeout::Connect,
            ..NextTimeout::default()
        };
        let start = Instant::now();
        while transport.await_input(timeout(50)).is_ok() {
            assert!(start.elapsed() < std::time::Duration::from_secs(20));
        }
        assert!(start.elapsed() >= std::time::Duration::from_millis(50));
        assert!(transport.await_input(timeout(51)).is_ok(), "another time-out starts anew");
        assert!(transport.await_input(NextTimeout::default()).is_ok());
        assert!(transport.await_input(timeout(50)).is_ok());
    }
}
