"""The rows that both commands have: outputs are compared first, then the two sides are timed in turn."""

import counts
import jobs
from pairs import Failed, pair_requests
from report import Row


class Duel:
    """Ours and the peer, resident with one model."""

    def __init__(self, machine, label, model, ours, theirs, peer):
        self.machine, self.label, self.model, self.peer = machine, label, model, peer
        self.ours, self.theirs = ours, theirs

    def path(self, name):
        return str(self.machine.folder / name)

    def timed(self, row, request, *, pairs, repeat=1, bar, check=None, names=("output",), flop=None):
        """Fills a row: `check` (the request itself, unless it is another one) must give alike outputs within `bar`."""
        outputs = [self.path(f"output-{side}.safetensors") for side in ("ours", "theirs")]
        try:
            for side, output in zip((self.ours, self.theirs), outputs):
                side.ask((check or request) | {"output": output})
            if row.agree(max(jobs.difference(*outputs, name) for name in names), bar):
                request = request | {"repeat": repeat}
                pairing = pair_requests(self.ours, request, self.theirs, request, pairs)
                row.fill(pairing, self.machine, 1 / repeat, flop)
        except Failed as error:
            row.give_up(str(error))
        return row

    def unet(self, what, rows, latent_side, target, **how):
        inputs = jobs.unet_inputs(self.model, rows, latent_side, self.path("inputs.safetensors"))
        back = ", forward and backward to the prompt" if what == "backward" else " forward"
        row = Row(f"{self.label}: U-Net{back}, {rows}×{latent_side}×{latent_side}", self.peer, target=target)
        flop = rows * counts.unet(str(self.model), latent_side, what == "backward")
        return self.timed(row, {"do": what, "inputs": inputs}, flop=flop, **how)

    def decode(self, latent_side, target, **how):
        inputs = jobs.unet_inputs(self.model, 1, latent_side, self.path("inputs.safetensors"))
        row = Row(f"{self.label}: VAE decoding, {latent_side}×{latent_side} latents", self.peer, target=target)
        return self.timed(row, {"do": "decode", "inputs": inputs}, flop=counts.decode(str(self.model), latent_side), **how)

    def image(self, title, request, target, **how):
        """Text, steps, VAE and the PNG on disk."""
        row = Row(f"{self.label}: {title}", self.peer, target=target)
        return self.timed(row, request | {"png": self.path("picture.png")}, **how)

    def tuning(self, side, num_auxiliary, target, **how):
        """A step against the authors' own; compared by the errors of the rows and the projector's gradient."""
        title = f"{self.label}: tuning step, K = {num_auxiliary}, {side}×{side}"
        row = Row(title, "the authors' step: nothing cached, anomaly detection", target=target)
        try:
            base = self.machine.base_set(self.model, jobs.WORD, side, images=num_auxiliary + 2)
            prepare = {"do": "prepare_tune", "base": str(base), "num_auxiliary": num_auxiliary}
            self.ours.ask(prepare | {"micro_batch": num_auxiliary + 2})
            self.theirs.ask(prepare)
        except Failed as error:
            return row.give_up(str(error))
        inputs = jobs.tune_inputs(base, num_auxiliary, self.path("tune.safetensors"))
        check = {"do": "tune_check", "inputs": inputs}
        return self.timed(row, {"do": "tune"}, check=check, names=("output", "gradients"), **how)


def own_ratio(machine, title, side, ours, theirs, target, *, pairs, **how):
    """Two requests of the same process: ours against ourselves."""
    row = Row(title, "itself", target=target)
    try:
        row.fill(pair_requests(side, ours, side, theirs, pairs, **how), machine)
    except Failed as error:
        row.give_up(str(error))
    return row
