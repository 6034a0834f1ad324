"""A small drawing surface: filled and outlined shapes on a 64x64 picture.

The toy world is drawn only with these five shapes. Drawing needs skia-python (and on a bare Debian the packages libegl1
and libgl1); reading the world's tables does not.
"""

import numpy as np

try:
    import skia
except ImportError:
    skia = None

SIZE = 64


def clip_color(color):
    return tuple(int(np.clip(channel, 0, 255)) for channel in color)


def shade(color, factor):
    """Darker (factor < 1) or brighter (factor > 1) version of a colour."""
    return clip_color(channel * factor for channel in color)


def mix(first, second, amount):
    return clip_color(a * (1 - amount) + b * amount for a, b in zip(first, second))


def jitter(color, rng, amount=14):
    return clip_color(channel + rng.integers(-amount, amount + 1) for channel in color)


class Canvas:
    """Shapes have a fill colour and some also an outline colour."""

    def __init__(self):
        self.rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
        self.canvas = skia.Canvas(self.rgba)
        self.paint = skia.Paint(AntiAlias=True)

    def _fill(self, color):
        self.paint.setStyle(skia.Paint.kFill_Style)
        self.paint.setColor(skia.Color(*(int(c) for c in color)))
        return self.paint

    def _stroke(self, color, width):
        self.paint.setStyle(skia.Paint.kStroke_Style)
        self.paint.setStrokeWidth(width)
        self.paint.setStrokeCap(skia.Paint.kRound_Cap)
        self.paint.setColor(skia.Color(*(int(c) for c in color)))
        return self.paint

    def background(self, color):
        self.canvas.drawPaint(self._fill(color))

    def oval(self, x, y, rx, ry, color, outline=None, width=1.1):
        rect = skia.Rect(x - rx, y - ry, x + rx, y + ry)
        self.canvas.drawOval(rect, self._fill(color))
        if outline:
            self.canvas.drawOval(rect, self._stroke(outline, width))

    def rect(self, x0, y0, x1, y1, color, outline=None, radius=0, width=1.1):
        rect = skia.Rect(x0, y0, x1, y1)
        self.canvas.drawRoundRect(rect, radius, radius, self._fill(color))
        if outline:
            self.canvas.drawRoundRect(rect, radius, radius, self._stroke(outline, width))

    def polygon(self, points, color, outline=None, width=1.1):
        path = skia.Path()
        path.moveTo(*points[0])
        for point in points[1:]:
            path.lineTo(*point)
        path.close()
        self.canvas.drawPath(path, self._fill(color))
        if outline:
            self.canvas.drawPath(path, self._stroke(outline, width))

    def line(self, x0, y0, x1, y1, color, width):
        self.canvas.drawLine(x0, y0, x1, y1, self._stroke(color, width))

    def arc(self, x, y, rx, ry, start, sweep, color, width):
        rect = skia.Rect(x - rx, y - ry, x + rx, y + ry)
        self.canvas.drawArc(rect, start, sweep, False, self._stroke(color, width))

    def clipped(self, x0, y0, x1, y1):
        """Context: only the parts inside the box are drawn."""
        return _Saved(self.canvas, lambda c: c.clipRect(skia.Rect(x0, y0, x1, y1), skia.ClipOp.kIntersect, True))

    def placed(self, x, y, degrees, scale, mirrored):
        """Context: moves the origin to (x, y), and turns, scales and optionally mirrors the drawing."""

        def move(canvas):
            canvas.translate(x, y)
            canvas.rotate(degrees)
            canvas.scale(-scale if mirrored else scale, scale)

        return _Saved(self.canvas, move)

    def pixels(self):
        return np.ascontiguousarray(self.rgba[..., :3])


class _Saved:
    def __init__(self, canvas, change):
        self.canvas, self.change = canvas, change

    def __enter__(self):
        self.canvas.save()
        self.change(self.canvas)

    def __exit__(self, *_):
        self.canvas.restore()
