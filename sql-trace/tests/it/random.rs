//! Random values, the same for the same seed.

/// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.below((high - low + 1) as u64) as i64)
    }

    /// An integer, often one of the edges.
    pub(crate) fn int(&mut self) -> i64 {
        match self.below(4) {
            0 => [0, 1, -1, i64::MIN, i64::MAX, 250, 251, 65_536][self.below(8) as usize],
            1 => self.between(-1000, 1000),
            _ => self.next() as i64,
        }
    }

    /// A number, often one of the odd ones.
    pub(crate) fn float(&mut self) -> f64 {
        const ODD: [f64; 10] = [
            0.0,
            -0.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            5e-324,
            f64::MAX,
            0.1,
            1e21,
        ];
        match self.below(3) {
            0 => ODD[self.below(10) as usize],
            1 => self.between(-1_000_000, 1_000_000) as f64 / 1000.0,
            _ => f64::from_bits(self.next()),
        }
    }

    /// Text that is meant to break out of whatever it is put in.
    pub(crate) fn text(&mut self) -> String {
        const PIECES: [&str; 30] = [
            "\"",
            "'",
            "\\",
            "\n",
            "\r",
            "\t",
            "\0",
            "`",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "\u{202e}",
            "e\u{301}",
            "\u{301}",
            "日本",
            "\u{1f600}",
            "\u{10ffff}",
            "\u{e000}",
            "\"), Int64(1",
            "]) }",
            ", ",
            "Null",
            "Blob([1, 2])",
            "\\u{41}",
            "\\n",
            "NULL",
            "…",
            "a",
            "hello world",
            "; DROP TABLE t; --",
        ];
        let mut text = String::new();
        for _ in 0..self.below(6) {
            text.push_str(PIECES[self.below(PIECES.len() as u64) as usize]);
        }
        if self.below(50) == 0 {
            text = text.repeat(200);
        }
        text
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let len = match self.below(40) {
            0 => 70_000,
            1 => 300,
            n => n % 9,
        };
        (0..len).map(|_| self.next() as u8).collect()
    }
}
