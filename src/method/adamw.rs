//! AdamW (arXiv 1711.05101, algorithm 2). The state of the binding's own AdamW cannot be saved and restored. An
//! interrupted tuning must continue with the same moments, so they are kept here.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::libtorch::foreach;

/// PyTorch's default, added to the root of the second moment.
const EPS: f64 = 1e-8;

/// The optimiser and its moments.
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    betas: (f64, f64),
    steps: i64,
    moments: BTreeMap<String, (Tensor, Tensor)>,
}

impl AdamW {
    /// Betas 0.9 and 0.999.
    pub fn new(learning_rate: f64, weight_decay: f64) -> Self {
        AdamW {
            learning_rate,
            weight_decay,
            betas: (0.9, 0.999),
            steps: 0,
            moments: BTreeMap::new(),
        }
    }

    /// Takes one step along the gradients of `parameters` and clears them. Parameters without a gradient stay as
    /// they are. Names as in the paper: θ, its gradient g, the moments m and v.
    pub fn step(&mut self, parameters: &BTreeMap<String, Tensor>) {
        let _frozen = tch::no_grad_guard();
        self.steps += 1;
        let (beta_1, beta_2) = self.betas;
        let unbias_1 = 1.0 - beta_1.powi(self.steps as i32);
        let unbias_2 = 1.0 - beta_2.powi(self.steps as i32);
        let (mut theta, mut g, mut m, mut v) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (name, parameter) in parameters {
            let grad = parameter.grad();
            if !grad.defined() {
                continue;
            }
            let first = || (grad.zeros_like(), grad.zeros_like());
            let moments = self.moments.entry(name.clone()).or_insert_with(first);
            m.push(moments.0.shallow_clone());
            v.push(moments.1.shallow_clone());
            theta.push(parameter.shallow_clone());
            g.push(grad);
        }
        // m ← β1 m + (1 - β1) g
        foreach::scale_(&m, beta_1);
        foreach::add_(&m, &foreach::scaled(&g, 1.0 - beta_1));
        // v ← β2 v + (1 - β2) g²
        let squares = foreach::products(&g, &g);
        foreach::scale_(&squares, 1.0 - beta_2);
        foreach::scale_(&v, beta_2);
        foreach::add_(&v, &squares);
        // θ ← (1 - α λ) θ - α m̂ / (√v̂ + ε)
        let root = foreach::parts(&v, unbias_2);
        foreach::sqrt_(&root);
        foreach::raise_(&root, EPS);
        let update = foreach::quotients(&m, &root);
        foreach::scale_(&update, self.learning_rate / unbias_1);
        foreach::scale_(&theta, 1.0 - self.learning_rate * self.weight_decay);
        foreach::sub_(&theta, &update);
        foreach::forget_gradients(&theta);
    }

    /// The number of steps, and the moments `m.<name>` and `v.<name>`, for saving.
    pub fn state(&self) -> (i64, BTreeMap<String, Tensor>) {
        let mut tensors = BTreeMap::new();
        for (name, (m, v)) in &self.moments {
            tensors.insert(format!("m.{name}"), m.shallow_clone());
            tensors.insert(format!("v.{name}"), v.shallow_clone());
        }
        (self.steps, tensors)
    }

    /// Continues from a saved state; `tensors` are on the parameters' device.
    pub fn restore(&mut self, steps: i64, tensors: &BTreeMap<String, Tensor>) {
        self.steps = steps;
        self.moments = tensors
            .iter()
            .filter_map(|(key, m)| {
                let name = key.strip_prefix("m.")?;
                let v = tensors.get(&format!("v.{name}"))?;
                Some((name.to_string(), (m.copy(), v.copy())))
            })
            .collect();
    }
}
