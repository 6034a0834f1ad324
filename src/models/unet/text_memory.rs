//! Keys and values of texts that many passes read. A layer projects each token independently, so
//! each token is projected once, however many rows, images and steps contain it. For example, a
//! prompt with and without an offset differs in the base word's tokens alone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tch::Tensor;

use crate::io::values::bytes;

/// Identifies one attention layer among those of all networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerId(usize);

impl LayerId {
    /// An id that no other layer has.
    pub fn unique() -> LayerId {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        LayerId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Keys and values by layer.
type Kept = RefCell<HashMap<LayerId, [Tensor; 2]>>;

/// All tokens of the texts that a run has read, with their keys and values in each layer that has
/// read them.
#[derive(Debug, Default)]
pub struct KnownTokens {
    /// The index of each token, by the bytes of its state.
    places: RefCell<HashMap<Vec<u8>, i64>>,
    /// The tokens' states `[N, D]`.
    states: RefCell<Option<Tensor>>,
    /// Keys and values by layer, `[n, D']` each, of the first n tokens.
    layers: Kept,
}

impl KnownTokens {
    /// The memory for passes over this text `[R, S, D]`. Each of its rows stands for `images`
    /// adjacent rows.
    pub fn memory_of(self: &Rc<Self>, text: &Tensor, images: i64) -> TextMemory {
        let (rows, s, width) = text.size3().expect("a text has three axes");
        let tokens = text.contiguous().view([rows * s, width]);
        let size = width as usize * tokens.kind().elt_size_in_bytes();
        let bytes = bytes(&tokens).expect("numbers have bytes");

        let mut known = self.places.borrow_mut();
        let mut new = Vec::new();
        let place = |(token, state): (usize, &[u8])| match known.get(state) {
            Some(place) => *place,
            None => {
                let place = known.len() as i64;
                known.insert(state.to_vec(), place);
                new.push(token as i64);
                place
            }
        };
        let places: Vec<i64> = bytes.chunks(size).enumerate().map(place).collect();
        let on_device = |list: &[i64]| Tensor::from_slice(list).to_device(text.device());
        if !new.is_empty() {
            let mut states = self.states.borrow_mut();
            let new = tokens.index_select(0, &on_device(&new));
            *states = Some(match states.take() {
                None => new,
                Some(before) => Tensor::cat(&[before, new], 0),
            });
        }
        let of_rows = on_device(&places).view([rows, s]);
        TextMemory {
            tokens: Rc::clone(self),
            places: of_rows.repeat_interleave_self_int(images, 0, None),
            layers: Kept::default(),
            image_layers: Kept::default(),
        }
    }

    /// Keys and values of all tokens `[N, D']` in a layer. `project` computes them for tokens that
    /// are new to the layer.
    fn keys_and_values(
        &self,
        layer: LayerId,
        project: impl FnOnce(&Tensor) -> [Tensor; 2],
    ) -> [Tensor; 2] {
        let states = self.states.borrow();
        let states = states.as_ref().expect("a text has tokens"); // [N, D]
        let mut layers = self.layers.borrow_mut();
        let seen = layers.remove(&layer);
        let first = seen.as_ref().map_or(0, |[keys, _]| keys.size()[0]);
        let all = match (seen, states.size()[0] - first) {
            (Some(seen), 0) => seen,
            (None, _) => project(states),
            (Some([keys, values]), new) => {
                let [new_keys, new_values] = project(&states.narrow(0, first, new));
                [
                    Tensor::cat(&[keys, new_keys], 0),
                    Tensor::cat(&[values, new_values], 0),
                ]
            }
        };
        let kept = layers.entry(layer).insert_entry(all);
        kept.get().each_ref().map(Tensor::shallow_clone)
    }
}

/// Keys and values of one text, and of the image prompt beside it, in every layer that has read
/// them.
#[derive(Debug)]
pub struct TextMemory {
    tokens: Rc<KnownTokens>,
    /// The index of each token of the text among all tokens `[B, S]`.
    places: Tensor,
    layers: Kept,
    image_layers: Kept,
}

impl TextMemory {
    /// Keys and values of the text in a layer. `project` maps tokens `[N, D]` to keys and values
    /// `[N, D']`. `split` turns `[B, S, D']` into the form that the heads read.
    pub(super) fn keys_and_values(
        &self,
        layer: LayerId,
        project: impl FnOnce(&Tensor) -> [Tensor; 2],
        split: impl Fn(Tensor) -> Tensor,
    ) -> [Tensor; 2] {
        let (b, s) = self.places.size2().expect("places have two axes");
        let in_their_order = |of_tokens: Tensor| {
            let ordered = of_tokens.index_select(0, &self.places.flatten(0, 1));
            split(ordered.view([b, s, -1]))
        };
        let compute = || {
            let of_tokens = self.tokens.keys_and_values(layer, project);
            of_tokens.map(in_their_order)
        };
        once(&self.layers, layer, compute)
    }

    /// Keys and values of the image prompt, from `project` or from an earlier call.
    pub(super) fn image_keys_and_values(
        &self,
        layer: LayerId,
        project: impl FnOnce() -> [Tensor; 2],
    ) -> [Tensor; 2] {
        once(&self.image_layers, layer, project)
    }
}

/// The result of `compute`, or of an earlier call for this layer.
fn once(kept: &Kept, layer: LayerId, compute: impl FnOnce() -> [Tensor; 2]) -> [Tensor; 2] {
    let mut layers = kept.borrow_mut();
    let known = layers.entry(layer).or_insert_with(compute);
    known.each_ref().map(Tensor::shallow_clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twice and three times the token. `asked` records the number of tokens in each call.
    fn project(asked: &RefCell<Vec<i64>>) -> impl Fn(&Tensor) -> [Tensor; 2] {
        |tokens| {
            asked.borrow_mut().push(tokens.size()[0]);
            [tokens * 2, tokens * 3]
        }
    }

    #[test]
    fn a_token_is_projected_once_in_each_layer() {
        let tokens = Rc::new(KnownTokens::default());
        let asked = RefCell::default();
        let [layer, other] = [LayerId::unique(), LayerId::unique()];
        let check = |memory: &TextMemory, layer, text: &Tensor| {
            let [keys, values] = memory.keys_and_values(layer, project(&asked), |x| x);
            assert_eq!((keys, values), (text * 2, text * 3));
        };
        // Two rows of three tokens; the first and the last token are the same in both.
        let text = Tensor::from_slice(&[1f32, 2.0, 3.0, 1.0, 9.0, 3.0]).view([2, 3, 1]);
        let memory = tokens.memory_of(&text, 1);
        for layer in [layer, layer, other] {
            check(&memory, layer, &text);
        }
        // One token of the other text is new; one layer has not read the first text.
        let longer = Tensor::from_slice(&[2f32, 9.0, 1.0, 7.0]).view([1, 4, 1]);
        let memory = tokens.memory_of(&longer, 1);
        let third = LayerId::unique();
        for layer in [layer, third, layer] {
            check(&memory, layer, &longer);
        }
        let same = tokens.memory_of(&text, 1);
        check(&same, layer, &text);
        // Adjacent rows for several images.
        let images = text.repeat_interleave_self_int(2, 0, None);
        check(&tokens.memory_of(&text, 2), layer, &images);
        assert_eq!(asked.into_inner(), [4, 4, 1, 5]);
    }
}
