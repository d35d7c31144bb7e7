"""Operators of torchvision, defined here as its documentation says, so that they need not be installed."""
import math

import torch
from aten_cases import case, floats

library = torch.library.Library("torchvision", "FRAGMENT")
SIGNATURES = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
    "ps_roi_align": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio) -> (Tensor, Tensor)",
    "roi_pool": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> (Tensor, Tensor)",
    "ps_roi_pool": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> (Tensor, Tensor)",
    "deform_conv2d": "(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor",
}
for name, signature in SIGNATURES.items():
    library.define(name + signature)


def pixel(image, y, x):
    """Channels of an image at a place between pixels; what lies outside is 0."""
    h, w = image.shape[1:]
    total, y0, x0 = torch.zeros(image.shape[0]), math.floor(y), math.floor(x)
    for i in (y0, y0 + 1):
        for j in (x0, x0 + 1):
            if 0 <= i < h and 0 <= j < w:
                total = total + image[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


def clamped_pixel(image, y, x):
    h, w = image.shape[1:]
    if y < -1 or y > h or x < -1 or x > w:
        return torch.zeros(image.shape[0])
    return pixel(image, min(max(y, 0.0), h - 1.0), min(max(x, 0.0), w - 1.0))


def nms(boxes, scores, limit):
    def overlap(a, b):
        lt, rb = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
        both = (rb - lt).clamp(min=0).prod()
        return both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both)

    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(overlap(boxes[i], boxes[j]) <= limit for j in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def roi_align(x, rois, scale, height, width, ratio, aligned):
    out = torch.zeros(len(rois), x.shape[1], height, width)
    if ratio <= 0:
        return out
    for r, (b, *box) in enumerate(rois.tolist()):
        x0, y0, x1, y1 = (v * scale - (0.5 if aligned else 0.0) for v in box)
        w, h = x1 - x0, y1 - y0
        if not aligned:
            w, h = max(w, 1.0), max(h, 1.0)
        for i in range(height * ratio):
            for j in range(width * ratio):
                at = y0 + h * (i + 0.5) / (height * ratio), x0 + w * (j + 0.5) / (width * ratio)
                out[r, :, i // ratio, j // ratio] += clamped_pixel(x[int(b)], *at) / ratio**2
    return out


def of_its_channel(cells):
    """Of `[k, c * h * w, h, w]`, each cell from its own channel."""
    k, c, h, w = cells.shape
    own = cells.reshape(k, c // (h * w), h * w, h * w).diagonal(dim1=2, dim2=3)
    return own.reshape(k, c // (h * w), h, w)


def ps_roi_align(x, rois, scale, height, width, ratio):
    y = of_its_channel(roi_align(x, rois, scale, height, width, ratio, True))
    return y, torch.zeros(y.shape, dtype=torch.int32)


def whole_pixels(x, rois, scale, height, width, more, last, reduce):
    """Cells of whole pixels: boxes that end `more` behind their corner, in an image less its `last` rows and columns."""
    h, w = x.shape[2:]
    half_up = lambda v: int(math.copysign(math.floor(abs(v) + 0.5), v))
    out = torch.zeros(len(rois), x.shape[1], height, width)
    for r, (b, x1, y1, x2, y2) in enumerate(rois.tolist()):
        left, top, right, bottom = (half_up(v * scale) for v in (x1, y1, x2, y2))
        tall, wide = max(bottom + more - top, 1) / height, max(right + more - left, 1) / width
        for i in range(height):
            for j in range(width):
                ys = [min(max(v + top, 0), h - last) for v in (math.floor(i * tall), math.ceil((i + 1) * tall))]
                xs = [min(max(v + left, 0), w - last) for v in (math.floor(j * wide), math.ceil((j + 1) * wide))]
                part = x[int(b), :, ys[0]:ys[1], xs[0]:xs[1]]
                if part.numel():
                    out[r, :, i, j] = reduce(part)
    return out


def roi_pool(x, rois, scale, height, width):
    y = whole_pixels(x, rois, scale, height, width, 1, 0, lambda p: p.amax((1, 2)))
    return y, torch.zeros(y.shape, dtype=torch.int32)


def ps_roi_pool(x, rois, scale, height, width):
    y = of_its_channel(whole_pixels(x, rois, scale, height, width, 0, 1, lambda p: p.mean((1, 2))))
    return y, torch.zeros(y.shape, dtype=torch.int32)


def deform_conv2d(x, weight, offset, mask, bias, sh, sw, ph, pw, dh, dw, groups, offset_groups, use_mask):
    (n, c), (o, _, kh, kw), (oh, ow) = x.shape[:2], weight.shape, offset.shape[2:]
    columns = torch.zeros(n, c, kh, kw, oh, ow)
    each = c // offset_groups
    for b in range(n):
        for g in range(offset_groups):
            for i in range(kh):
                for j in range(kw):
                    k = (g * kh + i) * kw + j
                    for y in range(oh):
                        for z in range(ow):
                            at = (y * sh - ph + i * dh + float(offset[b, 2 * k, y, z]), z * sw - pw + j * dw + float(offset[b, 2 * k + 1, y, z]))
                            read = pixel(x[b, g * each:(g + 1) * each], *at)
                            columns[b, g * each:(g + 1) * each, i, j, y, z] = read * (mask[b, k, y, z] if use_mask else 1)
    columns = columns.reshape(n, groups, c // groups * kh * kw, oh * ow)
    return (weight.reshape(groups, o // groups, -1) @ columns).reshape(n, o, oh, ow) + bias[:, None, None]


for f in (nms, roi_align, ps_roi_align, roi_pool, ps_roi_pool, deform_conv2d):
    library.impl(f.__name__, f, "CPU")
torch.library.register_fake("torchvision::nms", lambda d, s, t: d.new_empty([torch.library.get_ctx().new_dynamic_size()], dtype=torch.int64))
torch.library.register_fake("torchvision::roi_align", lambda x, r, s, h, w, n, a: x.new_empty([r.shape[0], x.shape[1], h, w]))
torch.library.register_fake("torchvision::deform_conv2d", lambda x, w, o, *_: x.new_empty([x.shape[0], w.shape[0], o.shape[2], o.shape[3]]))
def fake(x, r, channels, h, w):
    return tuple(x.new_empty([r.shape[0], channels, h, w], dtype=t) for t in (x.dtype, torch.int32))


torch.library.register_fake("torchvision::ps_roi_align", lambda x, r, s, h, w, n: fake(x, r, x.shape[1] // (h * w), h, w))
torch.library.register_fake("torchvision::roi_pool", lambda x, r, s, h, w: fake(x, r, x.shape[1], h, w))
torch.library.register_fake("torchvision::ps_roi_pool", lambda x, r, s, h, w: fake(x, r, x.shape[1] // (h * w), h, w))
V = torch.ops.torchvision
CORNERS = floats(12, 2, low=0, high=6)
BOXES = torch.cat([CORNERS, CORNERS + floats(12, 2, low=1, high=5)], 1)
ROIS = torch.cat([torch.tensor([[0.0], [1.0], [0.0]]), BOXES[:3]], 1)
X, O, W, M = floats(2, 4, 6, 7), floats(2, 2 * 2 * 9, 6, 7, low=-1, high=1), floats(6, 2, 3, 3), floats(2, 2 * 9, 6, 7, low=0, high=1)
CASES = [
    case("nms", lambda b, s: V.nms(b, s, 0.3), BOXES, floats(12)),
    case("nms_loose", lambda b, s: V.nms(b, s, 0.7), BOXES, floats(12)),
    case("roi_align", lambda x, r: V.roi_align(x, r, 1.0, 3, 2, 2, False), X, ROIS),
    case("roi_align_aligned", lambda x, r: V.roi_align(x, r, 0.5, 2, 2, 3, True), X, ROIS),
    case("roi_align_open_ratio", lambda x, r: V.roi_align(x, r, 1.0, 3, 2, 0, False), X, ROIS, refused="sampling_ratio"),
    case("ps_roi_align", lambda x, r: V.ps_roi_align(x, r, 1.0, 2, 2, 2)[0], X, ROIS),
    case("roi_pool", lambda x, r: V.roi_pool(x, r, 1.0, 3, 2)[0], X, ROIS),
    case("roi_pool_scaled", lambda x, r: V.roi_pool(x, r, 0.5, 2, 3)[0], X, ROIS),
    case("ps_roi_pool", lambda x, r: V.ps_roi_pool(x, r, 1.0, 2, 2)[0], X, ROIS),
    case("deform_conv", lambda x, w, o, m, b: V.deform_conv2d(x, w, o, m, b, 1, 1, 1, 1, 1, 1, 2, 2, True), X, W, O, M, floats(6)),
    case("deform_conv_plain", lambda x, w, o, m, b: V.deform_conv2d(x, w, o, m, b, 1, 1, 1, 1, 1, 1, 2, 2, False), X, W, O, M, floats(6)),
]
