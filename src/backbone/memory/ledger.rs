//! Values in memory while a network runs: what is taken and given back, in the order of the code that does it.

/// How many values are there now, and how many there were at most. A layer that is differentiated leaves behind what its way
/// back needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    live: i64,
    most: i64,
    /// Whether what is computed now is differentiated later.
    pub keeps: bool,
}

impl Ledger {
    /// New values.
    pub fn take(&mut self, values: i64) {
        self.live += values;
        self.most = self.most.max(self.live);
    }

    /// Values that nobody needs any more.
    pub fn free(&mut self, values: i64) {
        self.live -= values;
        debug_assert!(self.live >= 0, "only what was taken is given back");
    }

    /// Values that are freed unless the way back needs them.
    pub fn free_unless_kept(&mut self, values: i64) {
        if !self.keeps {
            self.free(values);
        }
    }

    /// Values that come and go.
    pub fn pass(&mut self, values: i64) {
        self.take(values);
        self.free(values);
    }

    /// The most values at a time.
    pub fn most(&self) -> i64 {
        self.most
    }
}

/// Feature maps of some rows: channels, positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    pub rows: i64,
    pub positions: i64,
}

impl Map {
    /// Values of so many channels.
    pub fn of(self, channels: i64) -> i64 {
        self.rows * self.positions * channels
    }
}

impl Ledger {
    /// A convolution of `from` to `to` values with this many weights. oneDNN reorders input, weight and output to blocks of
    /// channels; the output is laid out plainly when input and weight are gone. (cuDNN does the same in fp16.) Leaves the output.
    pub fn convolution(&mut self, from: i64, to: i64, weights: i64) {
        self.take(from + weights + to);
        self.free(from + weights);
        self.take(to);
        self.free(to);
    }

    /// `ResnetBlock2D` of a map that its caller holds: leaves the output.
    pub fn resnet(&mut self, map: Map, c_in: i64, c_out: i64) {
        self.take(map.of(c_in)); // norm1
        self.activation(map.of(c_in));
        self.convolution(map.of(c_in), map.of(c_out), 9 * c_in * c_out);
        self.free_unless_kept(map.of(c_in));
        self.take(map.of(c_out)); // norm2
        self.free_unless_kept(map.of(c_out));
        self.activation(map.of(c_out));
        self.convolution(map.of(c_out), map.of(c_out), 9 * c_out * c_out);
        self.free_unless_kept(map.of(c_out));
        if c_in != c_out {
            self.pass(map.of(c_out)); // conv_shortcut
        }
    }

    /// SiLU of a norm's output: in its place, or beside it where the way back needs both.
    pub fn activation(&mut self, values: i64) {
        if self.keeps {
            self.take(values);
        }
    }
}
