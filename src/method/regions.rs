//! Several subjects in one picture, the paper's independent variant: each word's offset acts only in the region
//! of that word's subject.
//!
//! The masks of a step come from the attention of the previous step, in the conditional row, because Eq. (19)
//! needs the masks before the attention of its own step is known. Before step 1, a pass of the plain prompt is
//! made only for its attention.
//!
//! A style has no region in the picture. No mask is made for its word, and its offset acts everywhere, in
//! addition to the other offsets in their masks.

use std::cell::RefCell;
use std::rc::Rc;

use tch::Tensor;

use super::base_word::BaseWordPrompt;
use super::masks::{subject_masks, word_maps};
use super::otsu::Otsu;
use crate::backbone::Conditioning;
use crate::backbone::attention_guide::{AttentionGuide, StepPass};
use crate::models::unet::attention_probe::{AttentionMaps, WatchedWords};
use crate::models::unet::cross_attention::AttentionRequest;
use crate::models::unet::token_mask::{Answers, TokenMask, TokenRules};

/// The regions of a prompt's words.
///
/// A guided row contains every token of c, followed by a second copy of the words' tokens with their offset
/// added ([`both_states`](Self::both_states)). At each position, the mask makes one of the two copies visible.
pub(super) struct Regions {
    prompt: Conditioning,
    guided_steps: (usize, usize),
    /// G, the number of words that have a region.
    regions: usize,
    /// The role of each token, for each guided row.
    rules: Vec<Vec<Answers>>,
    /// The same for the rows of as many images as there were last.
    rules_of_images: RefCell<Option<(i64, Rc<TokenRules>)>>,
    /// The words in a plain row, and in a guided row.
    plain: WatchedWords,
    guided: WatchedWords,
    otsu: Otsu,
    /// Masks of the subjects `[B, G, H, W]` for the next step.
    masks: RefCell<Option<Tensor>>,
}

impl Regions {
    /// Regions for guided steps with `rows` rows, of which the first has no prompt. `placed` says for each word
    /// of the prompt whether it has a region in the picture.
    pub fn new(
        prompt: &BaseWordPrompt,
        placed: &[bool],
        rows: usize,
        guided_steps: (usize, usize),
    ) -> Self {
        let c = &prompt.conditioning.prompt_embeds;
        let places = prompt.places().into_iter().zip(placed);
        let places: Vec<Vec<i64>> = places
            .filter(|(_, is_placed)| **is_placed)
            .map(|(places, _)| places)
            .collect();
        let plain_tokens = c.size()[1];
        let (with_prompt, appended) = rules(&places, plain_tokens);
        let mut negative = vec![Answers::Everywhere; plain_tokens as usize];
        negative.resize(with_prompt.len(), Answers::Nowhere);
        let mut rules = vec![negative];
        rules.resize(rows, with_prompt);
        let both: Vec<Vec<i64>> = places
            .iter()
            .zip(&appended)
            .map(|(plain, offset)| [&plain[..], offset].concat())
            .collect();
        Regions {
            plain: WatchedWords::new(&places, plain_tokens, c),
            guided: WatchedWords::new(&both, rules[0].len() as i64, c),
            otsu: Otsu::new(c.device()),
            regions: places.len(),
            rules_of_images: RefCell::default(),
            prompt: Conditioning::cat(&[&prompt.conditioning]),
            guided_steps,
            rules,
            masks: RefCell::default(),
        }
    }

    /// c, followed by a second copy of the tokens of each word that has a region: `[1, S + P, D]`. In c, each
    /// word without a region has its part of `semantic_offset [1, W, D]` added; in the copies, each word has
    /// its part added.
    pub fn both_states(
        prompt: &BaseWordPrompt,
        placed: &[bool],
        semantic_offset: &Tensor,
    ) -> Tensor {
        let c = &prompt.conditioning.prompt_embeds; // [1, S, D]
        let mut everywhere = c.copy(); // changed in place
        let mut parts = Vec::new();
        for (word, places) in prompt.places().iter().enumerate() {
            if !placed[word] {
                let shifted = prompt.shifted_words(semantic_offset, word..word + 1);
                everywhere += shifted - c;
                continue;
            }
            let places = Tensor::from_slice(places).to_device(c.device());
            let shifted = prompt.shifted_words(semantic_offset, word..word + 1);
            parts.push(shifted.index_select(1, &places));
        }
        parts.insert(0, everywhere);
        Tensor::cat(&parts, 1)
    }

    /// The masks of the last guided step.
    pub fn masks(&self) -> Option<Tensor> {
        self.masks.borrow().as_ref().map(Tensor::shallow_clone)
    }

    fn is_guided(&self, step: usize) -> bool {
        (self.guided_steps.0..=self.guided_steps.1).contains(&step)
    }

    /// The words in the conditional row of a step.
    fn watched(&self, step: usize) -> &WatchedWords {
        if self.is_guided(step) {
            &self.guided
        } else {
            &self.plain
        }
    }

    /// Makes the masks for the next step from the words' maps.
    fn mask_from(&self, maps: &[AttentionMaps], latent_size: [i64; 2]) {
        let maps = word_maps(maps, latent_size);
        *self.masks.borrow_mut() = Some(subject_masks(&maps, &self.otsu));
    }

    /// The role of each token in the rows of this many images, all images of a row together.
    fn rules_of(&self, images: i64) -> Rc<TokenRules> {
        let mut known = self.rules_of_images.borrow_mut();
        if let Some((of, rules)) = &*known
            && *of == images
        {
            return rules.clone();
        }
        let rows = self.rules.iter();
        let rows: Vec<Vec<Answers>> = rows
            .flat_map(|row| vec![row.clone(); images as usize])
            .collect();
        let like = &self.prompt.prompt_embeds;
        let rules = Rc::new(TokenRules::new(&rows, self.regions, like));
        *known = Some((images, rules.clone()));
        rules
    }

    /// The tokens that are visible at each position in a step, in the rows of all B images; `None` for a step
    /// that is not guided.
    fn mask(&self, step: usize) -> Option<TokenMask> {
        if !self.is_guided(step) {
            return None;
        }
        let masks = self.masks.borrow();
        let masks = masks.as_ref().expect("the step before has been observed");
        let rows = self.rules.len() as i64;
        let rules = self.rules_of(masks.size()[0]);
        Some(TokenMask::new(&masks.repeat([rows, 1, 1, 1]), &rules))
    }
}

/// The role of every token in a row with the prompt, and the positions of each word's tokens with the offset.
fn rules(places: &[Vec<i64>], plain_tokens: i64) -> (Vec<Answers>, Vec<Vec<i64>>) {
    let mut outside = vec![0u32; plain_tokens as usize];
    for (word, places) in places.iter().enumerate() {
        places
            .iter()
            .for_each(|&place| outside[place as usize] |= 1 << word);
    }
    let mut rules: Vec<Answers> = outside
        .into_iter()
        .map(|regions| match regions {
            0 => Answers::Everywhere,
            regions => Answers::OutsideOf(regions),
        })
        .collect();
    let mut appended = Vec::new();
    for (word, places) in places.iter().enumerate() {
        let first = rules.len() as i64;
        rules.extend(places.iter().map(|_| Answers::Inside(word)));
        appended.push((first..rules.len() as i64).collect());
    }
    (rules, appended)
}

impl AttentionGuide for &Regions {
    fn request(&mut self, pass: &StepPass) -> AttentionRequest {
        let step = pass.step;
        if pass.is_first && self.is_guided(step) {
            let maps = pass.maps_of_row(&self.prompt, &self.plain);
            self.mask_from(&maps, pass.latent_size());
        }
        AttentionRequest {
            mask: self.mask(step),
            probe: self
                .is_guided(step + 1)
                .then(|| pass.probe(self.watched(step))),
            sharing: None,
        }
    }

    fn observe(&mut self, _step: usize, maps: &[AttentionMaps], latent_size: [i64; 2]) {
        self.mask_from(maps, latent_size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tokens_answer_outside_and_tokens_with_offset_inside() {
        use Answers::{Everywhere, Inside, OutsideOf};
        // One word has positions 1 and 3, the other 3 and 4: position 3 belongs to both.
        let (rules, appended) = rules(&[vec![1, 3], vec![3, 4]], 6);
        let expected = [
            Everywhere,
            OutsideOf(0b01),
            Everywhere,
            OutsideOf(0b11),
            OutsideOf(0b10),
            Everywhere,
            Inside(0),
            Inside(0),
            Inside(1),
            Inside(1),
        ];
        assert_eq!(rules, expected);
        assert_eq!(appended, [[6, 7], [8, 9]]);
    }
}
