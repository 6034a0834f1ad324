"""The sixteen subjects of the toy world and the things they can wear, drawn from a `Look`.

A subject is drawn in its own coordinates: x in [-18, 18], y in [-28, 28], feet at about y = 25.
"""

from collections import namedtuple

from canvas import mix, shade

SPECIES = [
    "cat",
    "dog",
    "panda",
    "rabbit",
    "owl",
    "monkey",
    "dragon",
    "robot",
    "wizard",
    "hobbit",
    "ninja",
    "lion",
    "penguin",
    "frog",
    "boy",
    "girl",
]
HUMANS = {"wizard", "hobbit", "ninja", "boy", "girl"}
PATTERNS = ["unmarked", "striped", "spotted", "bellied"]
SKINS = [(252, 216, 184), (224, 172, 128), (150, 100, 68)]
HAIRS = [(70, 44, 34), (236, 200, 96), (200, 84, 40)]
BEARDS = [(240, 240, 240), (176, 176, 184), (150, 110, 70)]
BLACK, WHITE, FUR_BLACK = (34, 30, 36), (250, 250, 250), (40, 38, 44)

# The drawn values: RGB colours of body and trim, class of pattern, skin and hair, factors of width, head and ears
# (about 1), radius of the eyes.
Look = namedtuple("Look", "main second pattern width head ear eye skin hair")


class _Figure:
    def __init__(self, canvas, species, look, rng, attribute):
        self.k, self.species, self.look, self.attribute = canvas, species, look, attribute
        self.main, self.second = look.main, look.second
        self.human = species in HUMANS
        bright = min(look.main) > 205
        self.outline = (112, 112, 118) if bright else shade(look.main, 0.45)
        self.face_outline = None
        radius = 13 * look.head
        self.hx, self.hy, self.cy = radius * 1.05 * look.width, radius * 0.92, -8.5
        self.bw, self.top, self.bottom = 8.6 * look.width, self.cy + self.hy - 4, 18.5
        self.arm_swing = float(rng.uniform(-4, 3))
        self.hat_tip = float(rng.uniform(-3, 3))
        self.skin, self.hair = SKINS[look.skin], HAIRS[look.hair]
        self.limb, self.foot, self.face = self.main, self.second, self.main
        if species == "panda":
            self.limb = self.foot = FUR_BLACK
            self.face = (246, 246, 244)
        elif species == "penguin":
            self.foot = (244, 160, 40)
        elif species == "robot":
            self.limb = shade(self.main, 0.75)
        elif self.human:
            self.face = self.skin
            self.foot = self.skin if species == "hobbit" else shade(self.second, 0.8)
        self.eye_x, self.eye_y = 5.2 * look.width, self.cy + (0.6 if self.human else -0.6)
        if species == "frog":
            self.eye_x, self.eye_y = self.hx * 0.55, self.cy - self.hy * 0.85

    def is_(self, *species):
        return self.species in species

    def behind(self):
        k, e, hx, hy, cy = self.k, self.look.ear, self.hx, self.hy, self.cy
        if self.is_("lion"):
            k.oval(0, cy, hx * 1.32, hy * 1.36, self.second, shade(self.second, 0.6))
        if self.is_("dragon"):
            for s in (-1, 1):
                k.polygon(
                    [(s * 6, 4), (s * 19, -8 * e), (s * 21, 4), (s * 16, 6), (s * 15, 12), (s * 8, 12)],
                    self.second,
                    shade(self.second, 0.5),
                )
            k.polygon([(6, 16), (18, 18), (17, 10), (21, 21), (8, 22)], self.main, self.outline)
        if self.is_("cat", "monkey"):
            k.arc(12, 11, 6, 9, -60, 200, self.main, 3.2)
        if self.is_("ninja"):
            k.line(-12, 14, 14, -6, (90, 90, 100), 2.4)
            k.line(10, -3, 16, -8, BLACK, 3)
        if self.is_("girl"):
            k.rect(-hx * 1.02, cy - 4, hx * 1.02, cy + hy + 9 * e, self.second, shade(self.second, 0.6), 6)

    def legs(self):
        if self.is_("wizard"):
            return
        k, bottom = self.k, self.bottom
        color = self.limb
        if self.human:
            color = self.skin if self.is_("girl", "hobbit") else shade(self.second, 0.75)
        for s in (-1, 1):
            k.rect(s * 4.6 - 2.8, bottom - 4, s * 4.6 + 2.8, bottom + 6, color, shade(self.limb, 0.5), 2)
            k.oval(s * 5.2, bottom + 6.4, 5.2 if self.is_("hobbit") else 4.2, 2.6, self.foot, shade(self.foot, 0.5))

    def body(self):
        k, bw, top, bottom = self.k, self.bw, self.top, self.bottom
        if self.is_("robot"):
            k.rect(-bw, top, bw, bottom, self.main, self.outline, 2)
            k.rect(-bw * 0.6, top + 5, bw * 0.6, bottom - 3, self.second, shade(self.second, 0.5), 1)
            return
        if self.is_("wizard", "girl"):
            hem = bottom + (7 if self.is_("wizard") else 1)
            k.polygon(
                [(-bw * 0.55, top), (bw * 0.55, top), (bw * 1.25, hem), (-bw * 1.25, hem)], self.main, self.outline
            )
        else:
            k.rect(-bw, top, bw, bottom, self.main, self.outline, 7)
        with k.clipped(-bw * 0.92, top + 1, bw * 0.92, bottom - 0.5):
            self.body_pattern()
        if self.is_("hobbit"):
            for s in (-1, 1):
                k.polygon(
                    [
                        (s * bw * 0.98, top + 2),
                        (s * bw * 0.62, top + 2),
                        (s * bw * 0.7, bottom - 1),
                        (s * bw * 0.98, bottom - 1),
                    ],
                    shade(self.second, 0.9),
                )

    def body_pattern(self):
        k, bw, middle = self.k, self.bw, (self.top + self.bottom) / 2
        pattern = PATTERNS[self.look.pattern]
        if self.is_("penguin"):
            k.oval(0, middle + 2, bw * 0.66, 9, WHITE)
        elif pattern == "striped":
            for y in (4.4, 10, 15.6):
                k.rect(-13, y, 13, y + 2.9, self.second)
        elif pattern == "spotted":
            for x, y in ((-4.2, 6.6), (4.2, 7.6), (0, 11.8), (-4.8, 15.4), (5, 15.8)):
                k.oval(x * self.look.width, y, 2.15, 2.15, self.second)
        elif pattern == "bellied":
            k.oval(0, middle + 2.5, bw * 0.62, 7.2, self.second)

    def arms(self):
        k, bw = self.k, self.bw
        holding = self.attribute in ("ball", "burger", "beer", "sign")
        for s in (-1, 1):
            y = 6 if holding and s == 1 else 10 + self.arm_swing * s * 0.8
            if self.is_("owl", "penguin"):
                k.polygon(
                    [(s * bw * 0.9, 3), (s * (bw + 5), y + 4), (s * bw * 0.8, 14)], shade(self.main, 0.82), self.outline
                )
                continue
            k.line(s * bw * 0.92, 5, s * (bw + 4.5), y, shade(self.limb, 0.5), 5.4)
            k.line(s * bw * 0.92, 5, s * (bw + 4.5), y, self.limb, 3.8)
            hand = self.skin if self.human else self.limb if self.is_("panda") else self.second
            k.oval(s * (bw + 4.6), y + 0.6, 2.5, 2.5, hand)

    def ears(self):
        k, e, hx, hy, cy = self.k, self.look.ear, self.hx, self.hy, self.cy
        main, second, outline = self.main, self.second, self.outline
        for s in (-1, 1):
            if self.is_("cat"):
                k.polygon(
                    [(s * hx * 0.98, cy - 2), (s * hx * 0.86, cy - hy - 6 * e), (s * hx * 0.2, cy - hy * 0.7)],
                    main,
                    outline,
                )
                k.polygon(
                    [(s * hx * 0.82, cy - 5), (s * hx * 0.78, cy - hy - 3 * e), (s * hx * 0.42, cy - hy * 0.7)], second
                )
            if self.is_("panda"):
                k.oval(s * hx * 0.8, cy - hy * 0.82, 4.6 * e, 4.6 * e, FUR_BLACK, BLACK)
            if self.is_("lion"):
                k.oval(s * hx * 0.8, cy - hy * 0.82, 4.6 * e, 4.6 * e, main, outline)
            if self.is_("rabbit"):
                k.oval(s * hx * 0.42, cy - hy - 4.5 * e, 3.4, 8.5 * e, main, outline)
                k.oval(s * hx * 0.42, cy - hy - 4 * e, 1.6, 6 * e, second)
            if self.is_("monkey"):
                k.oval(s * hx * 1.06, cy, 4.8 * e, 4.8 * e, main, outline)
                k.oval(s * hx * 1.08, cy, 2.8 * e, 2.8 * e, second)
            if self.is_("dragon"):
                k.polygon(
                    [(s * hx * 0.3, cy - hy * 0.8), (s * hx * 0.75, cy - hy - 7 * e), (s * hx * 0.8, cy - hy * 0.5)],
                    second,
                    shade(second, 0.5),
                )
            if self.is_("owl"):
                k.polygon(
                    [(s * hx * 0.9, cy - 2), (s * hx * 0.95, cy - hy - 4 * e), (s * hx * 0.1, cy - hy * 0.85)],
                    main,
                    outline,
                )
            if self.is_("frog"):
                k.oval(s * hx * 0.55, cy - hy * 0.85, 5 * e, 5 * e, main, outline)

    def head(self):
        k, e, hx, hy, cy = self.k, self.look.ear, self.hx, self.hy, self.cy
        main, second, hair, skin = self.main, self.second, self.hair, self.skin
        if self.is_("robot"):
            k.line(0, cy - hy, 0, cy - hy - 5 * e, shade(main, 0.6), 2)
            k.oval(0, cy - hy - 5.5 * e, 2.5, 2.5, second, shade(second, 0.5))
            k.rect(-hx, cy - hy, hx, cy + hy * 0.92, main, self.outline, 3)
            for s in (-1, 1):
                k.rect(s * hx - 1.6, cy - 3, s * hx + 1.6, cy + 3, second)
        elif self.is_("hobbit"):
            k.oval(0, cy - 2, hx * 1.08, hy * 1.08, hair, shade(hair, 0.6))
            k.oval(0, cy + 1.5, hx * 0.9, hy * 0.86, skin)
            for s in (-1, 1):
                k.polygon(
                    [(s * hx * 0.85, cy - 1), (s * hx * 1.25 * e, cy - 5), (s * hx * 0.9, cy + 4)],
                    skin,
                    shade(skin, 0.6),
                )
            for x in (-8, -3, 3, 8):
                k.oval(x, cy - hy * 0.78, 3.6, 3.4, hair)
        elif self.is_("ninja"):
            k.oval(0, cy, hx, hy, main, self.outline)
            k.rect(-hx * 0.86, cy - 3, hx * 0.86, cy + 4.4, skin, None, 3)
            k.rect(-hx * 0.95, cy - 6.6, hx * 0.95, cy - 3.2, second)
        else:
            bright = min(self.face) > 205
            k.oval(0, cy, hx, hy, self.face, (120, 120, 126) if bright else shade(self.face, 0.5))
        if self.is_("boy", "girl"):
            color = hair if self.is_("boy") else second
            with k.clipped(-20, -40, 20, cy - hy * (0.25 if self.is_("boy") else 0.3)):
                k.oval(0, cy - 0.6, hx * 1.06, hy * 1.08, color)
        if self.is_("girl"):
            k.polygon([(5, cy - hy), (11, cy - hy - 4), (11, cy - hy + 3)], main, self.outline)
            k.polygon([(9, cy - hy), (3, cy - hy - 4), (3, cy - hy + 3)], main, self.outline)
        if self.is_("dog"):
            for s in (-1, 1):
                k.oval(s * hx * 0.98, cy + 1, 4.2, 8.5 * e, second, shade(second, 0.5))
        if self.is_("panda", "penguin"):
            k.rect(-self.bw * 0.95, cy + hy - 1.6, self.bw * 0.95, cy + hy + 2, second, shade(second, 0.6), 1.5)
            k.rect(self.bw * 0.2, cy + hy, self.bw * 0.65, cy + hy + 7, second, shade(second, 0.6), 1)

    def eyes(self):
        k, radius, y = self.k, self.look.eye, self.eye_y
        if self.is_("monkey"):
            k.oval(0, self.cy + 2.4, self.hx * 0.78, self.hy * 0.66, mix(self.second, (255, 240, 215), 0.55))
        if self.is_("penguin"):
            k.oval(0, self.cy + 2.4, self.hx * 0.72, self.hy * 0.66, WHITE)
        for s in (-1, 1):
            x = s * self.eye_x
            if self.is_("panda"):
                k.oval(x, y, 4.6, 5, FUR_BLACK)
            if self.is_("owl"):
                k.oval(x, y, 5.2, 5.2, mix(self.second, (255, 255, 255), 0.35), shade(self.second, 0.5))
            if self.is_("robot"):
                k.rect(x - radius - 0.6, y - radius, x + radius + 0.6, y + radius, (255, 250, 170), BLACK)
            else:
                k.oval(x, y, radius + 0.7, radius + 0.9, (255, 255, 255))
                k.oval(x, y + 0.2, radius * 0.78, radius * 0.9, BLACK)

    def muzzle(self):
        k, cy, main = self.k, self.cy, self.main
        y = cy + self.hy * 0.45
        light = mix(main, (255, 255, 255), 0.6)
        if self.is_("cat", "lion", "rabbit"):
            k.oval(0, y + 1, 4.8, 3.4, light)
            k.polygon([(-1.7, y - 1.2), (1.7, y - 1.2), (0, y + 0.8)], (236, 110, 130))
        if self.is_("cat"):
            for s in (-1, 1):
                k.line(s * 5, y, s * 12.5, y - 1.5, (60, 50, 50), 0.8)
                k.line(s * 5, y + 1.4, s * 12.5, y + 2.6, (60, 50, 50), 0.8)
        if self.is_("dog"):
            k.oval(0, y + 1, 5.6, 4.6, light)
            k.oval(0, y - 1.4, 2.4, 1.8, BLACK)
            k.oval(0, y + 4.2, 1.6, 2, (236, 100, 120))
        if self.is_("panda"):
            k.oval(0, y, 2.2, 1.6, BLACK)
            k.arc(0, y + 1.2, 2.4, 2, 20, 140, BLACK, 1)
        if self.is_("owl", "penguin"):
            w, low = (2.2, 2.4) if self.is_("owl") else (3, 3)
            k.polygon([(-w, cy + low), (w, cy + low), (0, cy + 7)], (246, 160, 40), (170, 90, 20), 0.8)
        if self.is_("monkey"):
            k.arc(0, y - 1, 4, 3, 20, 140, BLACK, 1.1)
            for s in (-1, 1):
                k.oval(s * 1.2, y - 1.6, 0.6, 0.6, BLACK)
        if self.is_("dragon"):
            k.oval(0, y + 1, 6.4, 4, mix(main, (255, 255, 255), 0.35), self.outline, 0.8)
            for s in (-1, 1):
                k.oval(s * 2.4, y, 0.9, 0.9, BLACK)
        if self.is_("robot"):
            k.rect(-5, y - 0.4, 5, y + 3.4, (60, 60, 70))
            for x in (-3, -0.5, 2):
                k.rect(x, y - 0.4, x + 1, y + 3.4, (220, 220, 220))
        if self.is_("frog"):
            k.arc(0, cy - 1, self.hx * 0.66, self.hy * 0.66, 20, 140, shade(main, 0.4), 1.6)
            for s in (-1, 1):
                k.oval(s * self.hx * 0.7, cy + 2, 2, 1.4, (250, 140, 150))
        if self.is_("boy", "girl", "hobbit"):
            k.arc(0, y - 2, 3.6, 3, 20, 140, (150, 50, 50), 1.1)
        if self.is_("wizard"):
            self.beard_and_hat()

    def beard_and_hat(self):
        k, e, hx, hy, cy = self.k, self.look.ear, self.hx, self.hy, self.cy
        beard = BEARDS[self.look.hair]
        k.polygon(
            [
                (-hx * 0.86, cy + 3),
                (hx * 0.86, cy + 3),
                (hx * 0.5, cy + hy + 2),
                (0, cy + hy + 7),
                (-hx * 0.5, cy + hy + 2),
            ],
            beard,
            shade(beard, 0.7),
        )
        k.oval(0, cy + 3, 2.2, 1.8, shade(self.skin, 0.9))
        k.polygon(
            [(-hx * 1.12, cy - hy * 0.42), (hx * 1.12, cy - hy * 0.42), (self.hat_tip, cy - hy - 10 * e)],
            self.main,
            self.outline,
        )
        k.rect(-hx * 1.2, cy - hy * 0.56, hx * 1.2, cy - hy * 0.22, self.second, shade(self.second, 0.5), 1.4)

    def wear(self):
        """The attribute of the caption: worn on the head or held in the right hand."""
        k, hx, cy, attribute = self.k, self.hx, self.cy, self.attribute
        if attribute == "sunglasses":
            for s in (-1, 1):
                k.rect(s * 5.4 - 4.6, cy - 3.8, s * 5.4 + 4.6, cy + 3, (20, 20, 24), None, 2)
            k.rect(-hx * 0.95, cy - 3.4, hx * 0.95, cy - 1.8, (20, 20, 24))
        brim = cy - self.hy * 0.55
        if attribute == "hat":
            blue, dark = (40, 80, 230), (16, 34, 120)
            k.rect(-hx * 0.66, brim - 9, hx * 0.66, brim, blue, dark, 2)
            k.rect(-hx * 1.12, brim - 1.5, hx * 1.12, brim + 1.6, blue, dark, 1.4)
            k.rect(-hx * 0.66, brim - 4, hx * 0.66, brim - 1.8, (240, 240, 250))
        if attribute == "police":
            k.oval(0, brim - 4, hx * 0.98, 5.4, (26, 34, 78), (10, 12, 40))
            k.rect(-hx * 0.8, brim - 2.4, hx * 0.8, brim + 1.6, (14, 16, 40), None, 1)
            k.oval(0, brim - 4.6, 2.4, 2.6, (250, 214, 70))
            k.oval(-self.bw * 0.45, 8, 1.7, 1.9, (250, 214, 70))
        hand = self.bw + 5
        if attribute == "ball":
            k.oval(hand + 1, 20, 6, 6, (240, 60, 60), (120, 20, 20))
            k.arc(hand + 1, 20, 3, 6, -90, 180, (255, 255, 255), 1.5)
            k.line(hand - 5, 20, hand + 7, 20, (255, 255, 255), 1.5)
        if attribute == "burger":
            bun = (226, 160, 74)
            k.oval(hand - 1, 3, 5.6, 4.2, bun, (140, 84, 30))
            k.rect(hand - 7, 2.6, hand + 5, 4.6, (90, 180, 60))
            k.rect(hand - 6.4, 4.4, hand + 4.4, 6.8, (110, 60, 40))
            k.rect(hand - 6, 6.4, hand + 4, 8.8, bun, None, 1.5)
        if attribute == "beer":
            k.rect(hand - 3.4, -1, hand + 3.4, 10, (246, 186, 44), (150, 100, 20), 1)
            k.oval(hand, -1.6, 4.4, 2.6, (255, 252, 240))
            k.arc(hand + 4.4, 4.5, 2.4, 3, -90, 180, (230, 230, 220), 1.4)
        if attribute == "sign":
            k.line(hand, 14, hand, -12, (130, 90, 50), 1.8)
            k.rect(hand - 7, -20, hand + 7, -9, (252, 250, 240), (60, 50, 50), 1)
            k.line(hand - 4.4, -16.5, hand + 4.4, -16.5, (60, 60, 60), 1.3)
            k.line(hand - 4.4, -12.8, hand + 3, -12.8, (60, 60, 60), 1.3)


def draw(canvas, species, look, rng, attribute=None):
    figure = _Figure(canvas, species, look, rng, attribute)
    for part in ("behind", "legs", "body", "arms", "ears", "head", "eyes", "muzzle", "wear"):
        getattr(figure, part)()
