"""The rows that both commands have: outputs are compared first, then the two sides are timed in turn."""

from contextlib import suppress

import counts
import jobs
from pairs import WARM_UPS, Failed, Samples, pair_requests
from report import Row


class Duel:
    """Ours and the peer, both loaded with one model."""

    def __init__(self, machine, label, model, ours, theirs, peer):
        self.machine, self.label, self.model, self.peer = machine, label, model, peer
        self.ours, self.theirs = ours, theirs

    def path(self, name):
        return str(self.machine.folder / name)

    def timed(
        self, row, request, *, pairs, bar, repeat=1, warm_ups=WARM_UPS, prepare=(), check=None,
        names=("output",), flop=None,
    ):  # fmt: skip
        """Fills a row. First each side gets its own `prepare` request. Then the outputs of `check` (by default the
        request itself) must agree within `bar`. If they differ, the row is rejected but timed all the same, and its
        samples are kept. If only the peer fails, our own times are kept."""
        outputs = [self.path(f"output-{side}.safetensors") for side in ("ours", "theirs")]
        sides, timed = (self.ours, self.theirs), request | {"repeat": repeat}
        try:
            for side, own in zip(sides, prepare):
                side.ask(own)
            for side, output in zip(sides, outputs):
                side.ask((check or request) | {"output": output})
            row.agree(max(jobs.difference(*outputs, name) for name in names), bar)
            # If the comparison ran the same request, it was a warm-up too.
            pairing = pair_requests(self.ours, timed, self.theirs, timed, pairs, warm_ups - (check is None))
            row.fill(pairing, self.machine, repeat, flop)
        except Failed as error:
            row.give_up(error)
            if error.pairing and error.pairing.ours.wall:
                return row.keep(error.pairing, repeat)
            with suppress(Failed):
                self.ours.ask(timed)
                samples = Samples()
                for _ in range(pairs):
                    samples.add(self.ours.ask(timed))
                row.fill_alone(samples, repeat, flop)
        return row

    def unet(self, what, rows, latent_side, target, **how):
        inputs = self.inputs(rows, latent_side)
        back = ", forward and backward to the prompt" if what == "backward" else " forward"
        row = Row(f"{self.label}: U-Net{back}, {rows}×{latent_side}×{latent_side}", self.peer, target=target)
        flop = rows * counts.unet(str(self.model), latent_side, what == "backward")
        return self.timed(row, {"do": what, "inputs": inputs}, flop=flop, **how)

    def inputs(self, rows, latent_side):
        """The file with the inputs of a pass."""
        return jobs.unet_inputs(self.model, rows, latent_side, self.path("inputs.safetensors"))

    def decode(self, latent_side, target, **how):
        row = Row(f"{self.label}: VAE decoding, {latent_side}×{latent_side} latents", self.peer, target=target)
        request = {"do": "decode", "inputs": self.inputs(1, latent_side)}
        return self.timed(row, request, flop=counts.decode(str(self.model), latent_side), **how)

    def image(self, title, request, target, **how):
        """Text, steps, VAE and the PNG on disk."""
        row = Row(f"{self.label}: {title}", self.peer, target=target)
        return self.timed(row, request | {"png": self.path("picture.png")}, **how)

    def tuning(self, side, num_auxiliary, target, **how):
        """A tuning step, compared with the authors' own: the errors of the rows and the projector's gradient must
        agree."""
        title = f"{self.label}: tuning step, K = {num_auxiliary}, {side}×{side}"
        row = Row(title, "the authors' step: nothing cached, anomaly detection", target=target)
        try:
            base = self.machine.base_set(self.model, jobs.WORD, side, images=num_auxiliary + 2)
        except Failed as error:
            return row.give_up(error)
        theirs = {"do": "prepare_tune", "base": str(base), "num_auxiliary": num_auxiliary}
        ours = theirs | {"micro_batch": num_auxiliary + 2}
        check = {"do": "tune_check", "inputs": jobs.tune_inputs(base, num_auxiliary, self.path("tune.safetensors"))}
        names = ("output", "gradients")
        return self.timed(row, {"do": "tune"}, prepare=(ours, theirs), check=check, names=names, **how)


def guided(machine, model, drawing, eta_2):
    """The request for a picture guided by Eq. (19)."""
    return drawing.with_offsets(jobs.offsets(model, machine.folder), eta_2)


def guided_costs(machine, label, model, side, drawing, *, pairs, **how):
    """The cost of guidance, compared with the same process without guidance: ours on both sides."""
    plain, target_row, both = (
        drawing.plain(),
        guided(machine, model, drawing, 0.0),
        guided(machine, model, drawing, 1.0),
    )
    for title, ours, theirs, target in (
        (f"image of {drawing.steps} steps, eta_2 = 0, over plain sampling", target_row, plain, 1.01),
        (f"eta_2 = 1 on {drawing.guided} of {drawing.steps} steps, over eta_2 = 0", both, target_row, 1.33),
    ):
        row = Row(f"{label}: {title}", "itself", target=target)
        try:
            row.fill(pair_requests(side, ours, side, theirs, pairs, **how), machine)
        except Failed as error:
            row.give_up(error)
        yield row
