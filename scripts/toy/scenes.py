"""The seventeen backgrounds of the toy world, one function each."""

import math

import numpy as np

from canvas import SIZE, jitter, mix, shade

PHRASES = {
    "plain": [""],
    "beach": ["at the beach", "walking on the beach"],
    "jungle": ["in the jungle", "in the forest"],
    "snow": ["in the snow", "walking in the snow"],
    "street": ["in the street", "walking on the street"],
    "city": ["with a city in the background", "in a futuristic cityscape", "on a rooftop overlooking a city skyline"],
    "mountain": ["with a mountain in the background", "in the mountains"],
    "eiffel": ["with the Eiffel Tower in the background", "near the Eiffel Tower"],
    "water": ["floating on top of water", "swimming in the water"],
    "library": ["in a library surrounded by books", "in a library"],
    "night": ["at night", "under the stars at night"],
    "space": ["in space", "in a space station observing Earth"],
    "desert": ["in the desert"],
    "park": ["running in the park", "in the park", "in the garden"],
    "castle": ["in a medieval castle courtyard", "near a castle"],
    "house": ["in the house", "eating breakfast in the house", "in a room"],
    "farm": ["on a farm with animals in the background", "on a farm"],
}
NAMES = list(PHRASES)
RIGHT = BOTTOM = SIZE


class _Draw:
    """The background of one picture: canvas, random numbers and the height of the horizon."""

    def __init__(self, canvas, rng):
        self.k, self.rng = canvas, rng
        self.h = self.uniform(36, 44)

    def uniform(self, low, high):
        return float(self.rng.uniform(low, high))

    def pick(self, items):
        return items[int(self.rng.integers(len(items)))]

    def near(self, color, amount=14):
        return jitter(color, self.rng, amount)

    def side(self, left, right):
        return self.uniform(*left) if self.rng.random() < 0.5 else self.uniform(*right)

    def sky(self, color, amount=8):
        self.k.background(self.near(color, amount))

    def ground(self, top, color, amount=8):
        self.k.rect(0, top, RIGHT, BOTTOM, self.near(color, amount))

    def dots(self, count, bottom, radius, color):
        for _ in range(count):
            self.k.oval(self.uniform(0, 64), self.uniform(0, bottom), radius, radius, color)

    def plain(self):
        color = mix(tuple(self.rng.integers(120, 256, 3)), (235, 235, 235), self.uniform(0.3, 0.9))
        self.k.background(color)
        self.k.rect(0, self.h + 8, RIGHT, BOTTOM, shade(color, 0.9))

    def beach(self):
        k, h = self.k, self.h
        self.sky((130, 210, 250), 14)
        k.oval(self.uniform(6, 58), self.uniform(6, 14), 5, 5, (255, 240, 90))
        k.rect(0, h - 12, RIGHT, h + 2, self.near((30, 120, 210)))
        self.ground(h, (244, 220, 150), 14)
        k.line(0, h, RIGHT, h, (255, 255, 255), 1.6)
        x = self.side((4, 12), (52, 60))
        k.line(x, h + 6, x + self.uniform(-3, 3), h - 18, (130, 85, 45), 2.6)
        for leaf in range(5):
            angle = leaf * 1.25 + self.uniform(0, 0.3)
            k.line(x, h - 19, x + 8 * math.cos(angle), h - 18 + 5 * math.sin(angle), (40, 150, 60), 2.4)

    def jungle(self):
        k, h = self.k, self.h
        self.sky((24, 84, 44), 10)
        self.ground(h + 8, (50, 110, 40), 10)
        for _ in range(int(self.rng.integers(3, 6))):
            x = self.uniform(0, 64)
            k.line(x, 0, x, h + 9, self.near((82, 58, 34), 10), self.uniform(2, 5))
        for _ in range(14):
            k.oval(
                self.uniform(0, 64),
                self.uniform(0, 30),
                self.uniform(4, 9),
                self.uniform(2, 4),
                self.near((46, 140, 54), 26),
            )
        for _ in range(6):
            x = self.uniform(0, 64)
            k.polygon([(x - 4, 64), (x, h + self.uniform(4, 12)), (x + 4, 64)], self.near((30, 130, 50), 16))

    def snow(self):
        k, h = self.k, self.h
        self.sky((176, 204, 232))
        for _ in range(4):
            x = self.uniform(0, 64)
            k.polygon([(x - 7, h + 4), (x, h - self.uniform(14, 24)), (x + 7, h + 4)], self.near((60, 110, 100), 10))
            k.polygon([(x - 3, h - 10), (x, h - 18), (x + 3, h - 10)], (245, 250, 255))
        self.ground(h, (244, 248, 255), 5)
        self.dots(24, 64, 1.1, (255, 255, 255))

    def street(self):
        k, h = self.k, self.h
        self.sky((170, 205, 235), 10)
        x = -self.uniform(0, 8)
        while x < 64:
            width, top = self.uniform(11, 17), self.uniform(8, 20)
            walls = [(200, 110, 90), (220, 190, 140), (160, 120, 110), (190, 170, 170)]
            k.rect(x, top, x + width, h, self.near(self.pick(walls)))
            for y in range(int(top) + 3, int(h) - 4, 7):
                for left in (x + 2, x + width - 5.5):
                    k.rect(left, y, left + 3.2, y + 3.6, (90, 120, 160))
            x += width
        k.rect(0, h, RIGHT, h + 5, (190, 190, 186))
        k.rect(0, h + 5, RIGHT, BOTTOM, (84, 86, 94))
        for x in range(-4, 64, 14):
            k.rect(x, h + 13, x + 8, h + 15, (245, 235, 160))

    def city(self):
        k = self.k
        self.sky((250, 180, 130), 14)
        x = -self.uniform(0, 6)
        while x < 64:
            width, top = self.uniform(6, 11), self.uniform(6, 26)
            k.rect(x, top, x + width, BOTTOM, self.near((72, 84, 130), 16))
            for y in np.arange(top + 2, 56, 4.5):
                for left in np.arange(x + 1.5, x + width - 2, 3.2):
                    if self.rng.random() < 0.6:
                        k.rect(left, y, left + 1.6, y + 2.2, (255, 232, 130))
            x += width + self.uniform(0, 1.5)
        self.ground(self.h + 10, (110, 110, 124))

    def mountain(self):
        k, h, cap = self.k, self.h, 0.32
        self.sky((150, 208, 250), 10)
        for _ in range(3):
            x, top, w = self.uniform(4, 60), self.uniform(4, 16), self.uniform(18, 28)
            k.polygon([(x - w, h + 4), (x, top), (x + w, h + 4)], self.near((112, 112, 136)))
            snow = top + (h + 4 - top) * cap
            k.polygon([(x - w * cap, snow), (x, top), (x + w * cap, snow)], (250, 250, 255))
        self.ground(h, (110, 176, 84), 10)

    def eiffel(self):
        k, iron = self.k, (110, 84, 70)
        self.sky((236, 190, 214), 10)
        self.ground(self.h + 4, (130, 180, 110))
        x, foot = self.side((8, 18), (46, 56)), self.h + 6
        k.polygon(
            [
                (x - 10, foot),
                (x - 6, foot),
                (x, foot - 20),
                (x + 6, foot),
                (x + 10, foot),
                (x + 1.6, foot - 38),
                (x, 3),
                (x - 1.6, foot - 38),
            ],
            iron,
        )
        k.rect(x - 6.5, foot - 14, x + 6.5, foot - 11.5, iron)
        k.rect(x - 4, foot - 25, x + 4, foot - 23, iron)
        k.line(x, 2, x, foot - 30, iron, 1.6)

    def water(self):
        self.sky((160, 224, 250))
        self.ground(self.h - 16, (36, 130, 220), 10)
        for _ in range(10):
            self.k.arc(self.uniform(0, 60), self.uniform(self.h - 13, 62), 4, 1.6, 180, 180, (180, 225, 255), 1.2)

    def library(self):
        k = self.k
        books = [(190, 50, 50), (50, 90, 160), (60, 130, 70), (210, 170, 60), (120, 60, 130), (220, 210, 190)]
        self.sky((122, 80, 48))
        for shelf in range(4):
            y, x = shelf * 14 - 2, 0
            while x < 64:
                width = self.uniform(2.5, 5)
                k.rect(x, y + self.uniform(1, 4), x + width - 0.5, y + 11.5, self.near(self.pick(books)))
                x += width
            k.rect(0, y + 11.5, RIGHT, y + 14, (84, 52, 30))
        self.ground(54, (166, 120, 76))

    def night(self):
        self.sky((18, 24, 66))
        self.k.oval(self.uniform(8, 56), self.uniform(7, 13), 5, 5, (250, 244, 200))
        self.dots(22, self.h, 0.8, (255, 255, 230))
        self.ground(self.h + 6, (26, 52, 56))

    def space(self):
        k = self.k
        self.sky((14, 8, 26), 6)
        self.dots(26, 64, 0.7, (240, 240, 255))
        x, y = self.side((6, 16), (48, 58)), self.uniform(8, 20)
        k.oval(x, y, 8, 8, self.near((60, 130, 220)))
        k.oval(x - 2, y - 1, 3.6, 2.6, (80, 180, 90))
        k.oval(x + 3, y + 3, 2.6, 2, (80, 180, 90))
        k.rect(0, 58, RIGHT, BOTTOM, (90, 92, 104))

    def desert(self):
        k, h, green = self.k, self.h, (60, 130, 60)
        self.sky((252, 214, 140))
        k.oval(self.uniform(6, 58), self.uniform(6, 13), 5, 5, (255, 250, 200))
        k.oval(self.uniform(0, 30), h + 14, 38, 18, self.near((226, 166, 88), 8))
        k.oval(self.uniform(34, 64), h + 16, 38, 18, self.near((216, 150, 76), 8))
        self.ground(h + 10, (232, 176, 98), 6)
        x = self.side((5, 14), (50, 59))
        k.line(x, h + 8, x, h - 12, green, 4)
        for reach, top, joint in ((-5, -6, -1), (5, -8, -4)):
            k.line(x + reach, h + top, x + reach, h + joint, green, 2.6)
            k.line(x + reach, h + joint, x, h + joint, green, 2.6)

    def park(self):
        k, h = self.k, self.h
        self.sky((170, 222, 250))
        self.ground(h, (126, 206, 90))
        for span in ((4, 14), (50, 60), (20, 44)):
            x = self.uniform(*span)
            k.line(x, h + 2, x, h - 10, (130, 90, 56), 3)
            k.oval(x, h - 16, 8, 8.5, self.near((70, 168, 64), 12))
        for _ in range(8):
            flower = self.pick([(255, 90, 110), (255, 240, 120), (255, 255, 255)])
            k.oval(self.uniform(0, 64), self.uniform(h + 4, 62), 1.3, 1.3, flower)

    def castle(self):
        k, h = self.k, self.h
        self.sky((196, 206, 224))
        stone = self.near((150, 146, 146), 8)
        k.rect(0, 20, RIGHT, h + 6, stone)
        for x in range(0, 64, 8):
            k.rect(x, 16, x + 4.5, 20.5, stone)
        for span in ((2, 6), (46, 50)):
            x = self.uniform(*span)
            k.rect(x, 8, x + 13, h + 6, shade(stone, 0.86))
            k.polygon([(x - 2, 9), (x + 6.5, -4), (x + 15, 9)], self.near((150, 60, 70)))
            k.rect(x + 5, 15, x + 8, 21, (50, 46, 60))
        self.ground(h + 4, (178, 160, 128))

    def house(self):
        k, h = self.k, self.h
        self.sky((246, 214, 176), 10)
        self.ground(h + 8, (176, 122, 78))
        x = self.side((3, 9), (40, 46))
        k.rect(x, 6, x + 16, 24, (170, 220, 250), (120, 80, 50), width=2)
        k.line(x + 8, 6, x + 8, 24, (120, 80, 50), 1.4)
        k.line(x, 15, x + 16, 15, (120, 80, 50), 1.4)
        x = (x + 32) % 64 if x < 30 else 5
        k.rect(x, 10, x + 12, 20, self.near((200, 120, 140), 30), (90, 60, 40), width=1.6)
        k.line(0, h + 8, RIGHT, h + 8, (230, 230, 220), 2)

    def farm(self):
        k, h = self.k, self.h
        self.sky((160, 216, 250))
        self.ground(h, (196, 190, 84))
        x = self.side((4, 10), (38, 44))
        k.rect(x, 20, x + 18, h + 3, self.near((190, 50, 44), 8))
        k.polygon([(x - 3, 21), (x + 9, 8), (x + 21, 21)], (110, 60, 50))
        k.rect(x + 6, 28, x + 12, h + 3, (245, 240, 230))
        for post in range(0, 66, 9):
            k.rect(post, h - 2, post + 2.4, h + 8, (238, 232, 220))
        k.rect(0, h + 0.5, RIGHT, h + 2.5, (238, 232, 220))
        x = (x + 34) % 56
        k.oval(x + 4, h + 1, 5, 3, (245, 245, 245))
        k.oval(x + 9, h - 1, 2, 2, (60, 50, 50))


def draw(canvas, name, rng):
    getattr(_Draw(canvas, rng), name)()


def draw_waterline(canvas, x, y, scale):
    """Hides everything below the water and adds a few waves around the swimmer."""
    line, width = y + scale * 13, 20 * scale
    canvas.rect(x - width, line, x + width, BOTTOM, (36, 130, 220))
    for q in (0.25, 1.25, 2.25, 3.25):
        canvas.arc(x - width + q * width * 0.5, line, width * 0.25, 1.6, 180, 180, (210, 238, 255), 1.4)
    for q in (-8, 4):
        canvas.arc(x + q, line + 8, 3, 1.4, 180, 180, (180, 225, 255), 1.2)
