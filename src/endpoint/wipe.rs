//! ureq's transports, wiped. ureq leaves what it sent and received in its buffers until they are
//! reused or freed.

use ureq::Agent;
use ureq::config::Config;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};
use zeroize::Zeroize;

use crate::endpoint::resolve::Lookup;

/// An agent like `Agent::new_with_config`'s that leaves no plaintext in the buffers of its
/// connections.
pub(crate) fn agent(config: Config) -> Agent {
    // Last in the chain, so that the buffers that hold plaintext are the ones that are wiped.
    let connector = DefaultConnector::new().chain(WipingConnector);
    Agent::with_parts(config, connector, Lookup)
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
        Ok(chained.map(WipingTransport))
    }
}

#[derive(Debug)]
struct WipingTransport<In: Transport>(In);

impl<In: Transport> WipingTransport<In> {
    fn wipe(&mut self) {
        let buffers = self.0.buffers();
        // With nothing left to consume, the whole buffer is free to be appended to.
        buffers.input_consume(buffers.input().len());
        buffers.input_append_buf().zeroize();
        buffers.output().zeroize();
    }
}

impl<In: Transport> Transport for WipingTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let result = self.0.transmit_output(amount, timeout);
        self.0.buffers().output()[..amount].zeroize();
        result
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(timeout)
    }

    /// ureq asks this right before it puts a connection into the pool, with all input consumed.
    fn is_open(&mut self) -> bool {
        if self.0.buffers().input().is_empty() {
            self.wipe();
        }
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

impl<In: Transport> Drop for WipingTransport<In> {
    fn drop(&mut self) {
        self.wipe();
    }
}
