//! Counts the values in memory while a network runs: allocated and freed values, in the order of the network's code.

/// The current and the largest number of values. A layer that is differentiated keeps the values that its
/// backward pass needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    live: i64,
    most: i64,
    /// Whether the current computation is differentiated later.
    pub keeps: bool,
}

impl Ledger {
    /// Adds new values.
    pub fn take(&mut self, values: i64) {
        self.live += values;
        self.most = self.most.max(self.live);
    }

    /// Removes values that are no longer needed.
    pub fn free(&mut self, values: i64) {
        self.live -= values;
        debug_assert!(self.live >= 0, "only allocated values can be freed");
    }

    /// Removes values that are not needed any more, except for the backward pass.
    pub fn free_unless_kept(&mut self, values: i64) {
        if !self.keeps {
            self.free(values);
        }
    }

    /// Adds and removes temporary values.
    pub fn pass(&mut self, values: i64) {
        self.take(values);
        self.free(values);
    }

    /// The largest number of values at one time.
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
    /// Number of values with this many channels.
    pub fn of(self, channels: i64) -> i64 {
        self.rows * self.positions * channels
    }
}

impl Ledger {
    /// A convolution of `from` to `to` values with this many weights. oneDNN reorders input, weight and output
    /// into blocks of channels, and restores the plain layout of the output after input and weight are freed.
    /// (cuDNN does the same in fp16.) Leaves the output in memory.
    pub fn convolution(&mut self, from: i64, to: i64, weights: i64) {
        self.take(from + weights + to);
        self.free(from + weights);
        self.take(to);
        self.free(to);
    }

    /// `ResnetBlock2D` of a map that its caller keeps. Leaves the output in memory.
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

    /// SiLU of a norm's output: in place, or as a copy if the backward pass needs both.
    pub fn activation(&mut self, values: i64) {
        if self.keeps {
            self.take(values);
        }
    }
}
