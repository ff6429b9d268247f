//! From the bytes of a stream, however they are cut, to whole frames.

use super::tunnel::{self, TunnelFrame};
use super::{Frame, FrameError, PREFIX_BYTES, Stream, body};

/// Collects the bytes of one frame at a time. Holds what has come of that frame and nothing else: at most
/// [`Stream::frame_bytes_max`], however much is claimed or offered.
#[derive(Debug)]
pub struct Decoder<G = Link> {
    grammar: G,
    /// Prefix and body of the frame that is coming.
    held: Vec<u8>,
}

/// What the frames of a stream may be.
pub trait Grammar {
    /// What comes out.
    type Frame;
    /// Most bytes that may follow the length.
    fn bytes_max(&self) -> usize;
    /// Whether frames of this kind may come.
    fn takes(&self, kind: u8) -> bool;
    /// Reads a whole body.
    ///
    /// # Errors
    /// What is wrong with its form.
    fn read(&self, kind: u8, body: &[u8]) -> Result<Self::Frame, FrameError>;
}

/// The frames of one of a link's streams.
#[derive(Clone, Copy, Debug)]
pub struct Link(Stream);

impl Grammar for Link {
    type Frame = Frame;

    fn bytes_max(&self) -> usize {
        self.0.frame_bytes_max()
    }

    fn takes(&self, kind: u8) -> bool {
        body::stream_of(kind) == Some(self.0)
    }

    fn read(&self, kind: u8, body: &[u8]) -> Result<Frame, FrameError> {
        body::read(kind, body)
    }
}

/// The first frame of a tunnel's stream, or its answer.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel;

impl Grammar for Tunnel {
    type Frame = TunnelFrame;

    fn bytes_max(&self) -> usize {
        tunnel::FRAME_BYTES_MAX
    }

    fn takes(&self, kind: u8) -> bool {
        tunnel::is_kind(kind)
    }

    fn read(&self, kind: u8, body: &[u8]) -> Result<TunnelFrame, FrameError> {
        tunnel::read(kind, body)
    }
}

impl Decoder {
    /// For a stream of a link.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self { grammar: Link(stream), held: Vec::new() }
    }
}

impl Decoder<Tunnel> {
    /// For a tunnel's stream. What follows the first frame is the tunnel's content and is left in the input.
    #[must_use]
    pub fn tunnel() -> Self {
        Self { grammar: Tunnel, held: Vec::new() }
    }
}

impl<G: Grammar> Decoder<G> {
    /// Takes bytes from the front of `input` until a frame is whole or none are left. To be called until it gives
    /// `None`.
    ///
    /// # Errors
    /// The frame is refused, by its prefix if that is enough. Nothing sensible follows on this stream.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<G::Frame>, FrameError> {
        if !self.fill(input, PREFIX_BYTES) {
            return Ok(None);
        }
        let [a, b, c, d, kind] = *self.held.first_chunk().expect("the prefix has come");
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let most = self.grammar.bytes_max();
        if length > most {
            return Err(FrameError::Long { bytes: length, most });
        }
        if length == 0 {
            return Err(FrameError::Malformed("a frame without a kind"));
        }
        if !self.grammar.takes(kind) {
            return Err(FrameError::Kind { kind });
        }
        if !self.fill(input, 4 + length) {
            return Ok(None);
        }
        let frame = self.grammar.read(kind, &self.held[PREFIX_BYTES..]);
        // A large frame is rare; its room is not kept for the small ones that follow.
        self.held = Vec::new();
        frame.map(Some)
    }

    /// Whether no frame has come in part: only then may the stream end.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether `wanted` bytes are held, after taking what lacks from the front of `input`.
    fn fill(&mut self, input: &mut &[u8], wanted: usize) -> bool {
        let lacking = wanted.saturating_sub(self.held.len()).min(input.len());
        let (taken, rest) = input.split_at(lacking);
        self.held.extend_from_slice(taken);
        *input = rest;
        self.held.len() >= wanted
    }
}
