//! ureq's transports, wiped. ureq leaves what it sent and received in its buffers until they are
//! reused or freed.

use ureq::Agent;
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use zeroize::Zeroize;

use crate::endpoint::resolve::Lookup;

/// An agent that leaves no plaintext in the buffers of its connections.
pub(crate) fn agent(config: Config, connector: impl Connector<()>) -> Agent {
    // Last in the chain, so that the buffers that hold plaintext are the ones that are wiped.
    Agent::with_parts(config, connector.chain(WipingConnector), Lookup)
}

#[derive(Debug)]
struct WipingConnector;

impl<In: Transport> Connector<In> for WipingConnector {
    type Out = WipingTransport<In>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(|inner| WipingTransport { inner, used: 0 }))
    }
}

#[derive(Debug)]
struct WipingTransport<In: Transport> {
    inner: In,
    /// How many bytes of the input buffer have been used at most since it was wiped: those that
    /// were received, and those that were sent, since ureq reads a chunked body into it on its way
    /// out.
    used: usize,
}

impl<In: Transport> WipingTransport<In> {
    fn wipe_input(&mut self) {
        let buffers = self.inner.buffers();
        // With nothing left to consume, the whole buffer is free to be appended to, and every byte
        // lay no further from its start than there were bytes in all.
        buffers.input_consume(buffers.input().len());
        let free = buffers.input_append_buf();
        let used = self.used.min(free.len());
        free[..used].zeroize();
        self.used = 0;
    }
}

impl<In: Transport> Transport for WipingTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let result = self.inner.transmit_output(amount, timeout);
        self.inner.buffers().output()[..amount].zeroize();
        self.used = self.used.saturating_add(amount);
        result
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let before = self.inner.buffers().input().len();
        let result = self.inner.await_input(timeout);
        let received = self.inner.buffers().input().len().saturating_sub(before);
        self.used = self.used.saturating_add(received);
        result
    }

    /// ureq asks this right before it puts a connection into the pool, with all input consumed.
    fn is_open(&mut self) -> bool {
        if self.inner.buffers().input().is_empty() {
            self.wipe_input();
        }
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl<In: Transport> Drop for WipingTransport<In> {
    fn drop(&mut self) {
        let buffers = self.inner.buffers();
        buffers.input_consume(buffers.input().len());
        // The whole of both, also what ureq has grown the input buffer by: a body that was read and
        // never sent lies anywhere. To look whether there is something costs a tenth of wiping.
        let (input, output) = buffers.tmp_and_output();
        for buffer in [input, output] {
            if buffer.iter().fold(0, |all, byte| all | byte) != 0 {
                buffer.zeroize();
            }
        }
    }
}
