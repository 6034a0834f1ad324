#!/usr/bin/env bash
# From a bare machine to pictures: builds oneactor and runs its main job on the embedded toy model. Writes
# runs/quickstart/: robot/grid.png (base images), robot/actor.safetensors (the actor) and
# scenes/comparison.png (the same prompts and seeds, plain and with the actor, side by side).
. "$(dirname "$0")/environment.sh"

# The toy model needs only one thread; two threads beside another busy process are far slower than one.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

say "building (the first time takes some minutes)"
cargo build --release --locked
oneactor=${CARGO_TARGET_DIR:-target}/release/oneactor
out=runs/quickstart
# Always from the beginning, to show the whole job.
rm -rf "$out"
mkdir -p "$out"
printf '%s\n' '[b], at the beach.' '[b], in the snow.' '[b], in the jungle.' '[b], at night.' \
  '[b], in a library surrounded by books.' '[b], in the street.' >"$out/prompts.txt"

say "1. eleven base images of a robot"
"$oneactor" generate-base --model toy -p "a photo of a robot" --subject robot --guidance-scale 4 -o "$out/robot"
say "2. an actor for the most typical of them"
# The learning rate and number of steps that reach a likeness soonest on the toy: measured in
# scripts/toy/README.md.
"$oneactor" tune "$out/robot" --target auto --learning-rate 2e-3 --max-steps 300
say "3. the same robot in six scenes, beside the pictures of the plain model"
"$oneactor" sample "$out/robot" --guidance-scale 4 --prompts-file "$out/prompts.txt" -o "$out/scenes" --compare
say "look at $out/robot/grid.png and $out/scenes/comparison.png"
folder=$(cd "$(dirname "$oneactor")" && pwd)
cat >&2 <<END

The program is $folder/oneactor. To type oneactor in this shell, and to draw the same robot elsewhere:
  export PATH="$folder:\$PATH"
  oneactor sample $out/robot -p "[b], in space" --guidance-scale 4 -o $out/space
configs/GUIDE.md continues from here, step by step. README.md says how to install it, and how to draw with SDXL on a GPU.
END
