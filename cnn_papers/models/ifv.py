"""The improved Fisher vector: a shallow encoding of an image's descriptors, of SIFT and of colours.

Chatfield, Simonyan, Vedaldi, Zisserman: Return of the Devil in the Details: Delving Deep into
Convolutional Nets. BMVC 2014. arXiv:1405.3531
Perronnin, Sánchez, Mensink: Improving the Fisher Kernel for Large-Scale Image Classification.
ECCV 2010.

The descriptors of an image, from `dense_sift` at the end of the host operations, are projected to
their principal components. A mixture of Gaussians, the words, says which word each belongs to, and
the Fisher vector is the gradient of its likelihood by the means and variances of the words. Layers
`pca` and `gmm` are fitted to a sample of training descriptors before the first step
(`weights/fitting.py`) and stay as they are; only the linear classifier is trained. Descriptors of
colours have components and words of their own, layers `colour_pca` and `colour_gmm`, and their
Fisher vector follows that of SIFT or takes its place.

Deviations:
  - The classifier is trained like a network's last layer, by the softmax cross-entropy and
    gradient descent. The paper has one-vs-rest linear SVMs, which can be fitted to the outputs of
    layer `fisher`.
  - The sample is 100,000 descriptors, not the authors' millions; `sample` changes it.
  - The paper's encoder drops descriptors of little contrast (VLFeat); here only those without any
    gradient are dropped.
  - With `spm`, the vector of each region has unit length, as in the authors' code (enceval,
    FKdemo), and so has the whole, which theirs leaves at √8.
  - `norm` "intra" normalises the means and variances of a word together. The paper does not say
    whether they are normalised apart.
  - Colours are from memory of the paper, after Clinchant et al. (2007): mean and deviation of each
    channel in 4×4 cells of a patch. It is assumed that the channels are R, G and B, that patch,
    grid and scales are SIFT's, that colours have no place (`xy`), and that the vectors of SIFT and
    of colours have unit length, as the whole has. Patches that are all black are dropped.
  - `width` multiplies the number of words.
"""

import math
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, variants

CHUNK = 4096  # rows of posteriors that an image has at once, one for each region of a descriptor

# Rows of (top, bottom, left, right) in shares of the image: the whole, quarters, three stripes.
REGIONS = (
    (0, 1, 0, 1),
    (0, 1 / 2, 0, 1 / 2),
    (0, 1 / 2, 1 / 2, 1),
    (1 / 2, 1, 0, 1 / 2),
    (1 / 2, 1, 1 / 2, 1),
    (0, 1 / 3, 0, 1),
    (1 / 3, 2 / 3, 0, 1),
    (2 / 3, 1, 0, 1),
)

VARIANTS: dict[str, dict[str, Any]] = {
    "256": {},
    "512": {"words": 512},
    "256-xy": {"xy": True},
    "512-xy": {"words": 512, "xy": True},
    "256-spm": {"spm": True},
    "512-colours": {"words": 512, "colours": "only"},
    "512-xy-colours": {"words": 512, "xy": True, "colours": "beside"},
}
CHOICES = {"norm": ("none", "l2", "improved", "intra"), "colours": ("none", "beside", "only")}


class Kind(NamedTuple):
    """A kind of descriptors, with components and words of its own.

    Attributes:
      pca, gmm: names of its layers, whose arrays are fitted, not trained.
      values: of a descriptor.
      columns: of these values in a row, which ends with the place y, x.
    """

    pca: str
    gmm: str
    values: int
    columns: slice


SIFT = Kind("pca", "gmm", 128, slice(0, 128))
COLOURS = Kind("colour_pca", "colour_gmm", 96, slice(-98, -2))
# By `colours`: the kinds in their order in a row, and the host operation that gives them.
KINDS = {
    "none": ((SIFT,), "dense_sift"),
    "beside": ((SIFT, COLOURS), "dense_sift(colours=True)"),
    "only": ((COLOURS,), "dense_colours"),
}


class Mixture(NamedTuple):
    """A mixture of k Gaussians over d dimensions, with diagonal covariances.

    Attributes:
      log_weight: logarithm of each word's share, [k].
      mean, var: [k, d].
    """

    log_weight: jax.Array
    mean: jax.Array
    var: jax.Array


class Projection(nn.Module):
    """The principal components of descriptors: (mean [values], kernel [values, dims])."""

    values: int
    dims: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        return (
            self.param("mean", nn.initializers.zeros, (self.values,)),
            self.param("kernel", nn.initializers.orthogonal(), (self.values, self.dims)),
        )


class Words(nn.Module):
    """The mixture of Gaussians."""

    words: int
    dims: int

    @nn.compact
    def __call__(self) -> Mixture:
        shape = (self.words, self.dims)
        return Mixture(
            self.param("log_weight", nn.initializers.zeros, shape[:1]),
            self.param("mean", nn.initializers.normal(0.1), shape),
            self.param("var", nn.initializers.constant(0.01), shape),
        )


class FisherVector(nn.Module):
    """Descriptors to Fisher vector to scores of classes.

    Called with `image` float [n, k, columns, 1], the values 0 … 255 of k descriptors and their y
    and x; rows of zeros do not count, and an image without any other has the Fisher vector zero.
    Returns logits float32 [n, num_classes] and a dict with `fisher` [n, 1, 1, size].
    """

    num_classes: int = 20
    words: int = 256
    dims: int = 80  # of the principal components
    root: bool = True  # the square root of each value, of descriptors whose sum is one
    xy: bool = False  # two more dimensions of SIFT's: the place in the image
    spm: bool = False  # one vector for each of eight regions
    colours: str = "none"  # descriptors of colours: "beside" SIFT's, or "only" they
    norm: str = "improved"  # signed root and unit length; "intra": before it, of each word
    sample: int = 100_000  # descriptors that `pca` and `gmm` are fitted to
    width: float = 1.0  # multiplies the number of words; 1 is the paper's
    dtype: Any = None  # of the classifier; the encoder is in float32

    takes_descriptors: ClassVar[bool] = True  # in place of images: see data/mirror.py

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        columns = sum(kind.values for kind in self.kinds) + 2
        if image.shape[2:] != (columns, 1):
            raise ValueError(
                f"it takes descriptors, {columns}×1 values each, not images of "
                f"{'×'.join(map(str, image.shape[1:]))}: "
                f"end the host operations with {KINDS[self.colours][1]}"
            )
        vectors = [
            self._normalise(self._encode(image[..., 0].astype(jnp.float32), kind))
            for kind in self.kinds
        ]
        fisher = jnp.concatenate([vector.reshape(len(image), 1, 1, -1) for vector in vectors], -1)
        if len(vectors) > 1 and self.norm != "none":
            fisher = _over_length(fisher, (3,))
        ends = {"fisher": fisher if self.dtype is None else fisher.astype(self.dtype)}
        classifier = layers.FullyConnected(
            self.num_classes, nn.initializers.zeros, dtype=self.dtype, name="classifier"
        )
        ends["classifier"] = classifier(ends["fisher"])
        return ends["classifier"].mean((1, 2), dtype=jnp.float32), ends

    @property
    def total_words(self) -> int:
        """The number of words, with `width`."""
        return max(1, round(self.words * self.width))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of descriptors, in the order of their columns."""
        return KINDS[self.colours][0]

    def dims_of(self, kind: Kind) -> int:
        """Returns the dimensions of a word: of the components and, of SIFT with `xy`, of places."""
        return self.dims + 2 * (self.xy and kind == SIFT)

    def _encode(self, image: jax.Array, kind: Kind) -> jax.Array:
        """Returns the Fisher vectors of [n, k, columns] as [n, regions, words, 2, dims].

        Sums go over chunks of descriptors, so that no array has all of k × words.
        """
        mean, kernel = Projection(kind.values, self.dims, name=kind.pca)()
        mixture = Words(self.total_words, self.dims_of(kind), name=kind.gmm)()
        count, descriptors, columns = image.shape
        regions = REGIONS if self.spm else REGIONS[:1]
        chunks = math.ceil(descriptors * len(regions) / CHUNK)
        size = math.ceil(descriptors / chunks)
        image = jnp.pad(image, ((0, 0), (0, chunks * size - descriptors), (0, 0)))
        parts = image.reshape(count, chunks, size, columns).swapaxes(0, 1)
        shape = (count, len(regions), self.total_words)
        zeros = jnp.zeros((*shape, 2 * self.dims_of(kind))), jnp.zeros(shape), jnp.zeros(shape[:2])

        def add(sums: Any, part: jax.Array) -> tuple[Any, None]:
            values, is_present = self.scaled(part[..., kind.columns], kind)
            with jax.named_scope(kind.pca):
                x = jnp.matmul(values - mean[None, None], kernel, precision="highest")
            if self.dims_of(kind) > self.dims:
                x = jnp.concatenate([x, part[..., -2:] / 255 - 0.5], -1)
            members = is_present[:, None] * _members(part[..., -2:], regions)  # [n, regions, k]
            with jax.named_scope(kind.gmm):
                of_regions = members[..., None] * posteriors(x, mixture)[:, None]
                moments = jnp.concatenate([x, x**2], -1)
                products = jnp.einsum("nrkw,nkd->nrwd", of_regions, moments, precision="highest")
            new = products, of_regions.sum(2), members.sum(2)
            return jax.tree.map(jnp.add, sums, new), None

        (moments, shares, counts), _ = jax.lax.scan(add, zeros, parts)
        return fisher_vector(moments, shares, counts, mixture)

    def scaled(self, values: jax.Array, kind: Kind) -> tuple[jax.Array, jax.Array]:
        """Returns descriptors [..., values] as they are projected, and which are not zero."""
        if kind == SIFT:
            return unit_length(values, root=self.root)
        return values / 255, (values > 0).any(-1)

    def _normalise(self, fisher: jax.Array) -> jax.Array:
        """Normalises [n, regions, words, 2, dims]; with several regions, each of them first."""
        if self.norm in ("improved", "intra"):
            fisher = jnp.sign(fisher) * jnp.sqrt(jnp.abs(fisher))
        if self.norm == "intra":
            fisher = _over_length(fisher, (3, 4))
        if self.norm != "none":
            fisher = _over_length(_over_length(fisher, (2, 3, 4)), (1, 2, 3, 4))
        return fisher.swapaxes(2, 3)  # the means of all words, then their variances


def unit_length(values: jax.Array, *, root: bool) -> tuple[jax.Array, jax.Array]:
    """Returns descriptors [..., 128] at unit length, and which are not zero, bool [...].

    With `root` their square roots are, of a sum of one (Arandjelović and Zisserman, CVPR 2012).
    """
    values = jnp.maximum(values, 0)
    total = (values if root else values**2).sum(-1)
    is_present = total > 0
    total = jnp.where(is_present, total, 1)[..., None]
    # The root of a zero would have no gradient.
    scaled = jnp.where(values > 0, values, 1) / total if root else values / jnp.sqrt(total)
    return jnp.where(values > 0, jnp.sqrt(scaled), 0) if root else scaled, is_present


def posteriors(x: jax.Array, mixture: Mixture) -> jax.Array:
    """Returns the probability that each of x [..., d] is of each word, [..., words].

    The squared distances are two matrix products.
    """
    precision = 1 / mixture.var
    linear = jnp.matmul(x, (mixture.mean * precision).T, precision="highest")
    square = jnp.matmul(x**2, precision.T, precision="highest")
    constant = jax.nn.log_softmax(mixture.log_weight) - 0.5 * (
        jnp.log(mixture.var) + mixture.mean**2 * precision
    ).sum(-1)
    constant = constant.reshape(*[1] * (x.ndim - 1), -1)
    return jax.nn.softmax(constant + linear - 0.5 * square)


def fisher_vector(
    moments: jax.Array, shares: jax.Array, counts: jax.Array, mixture: Mixture
) -> jax.Array:
    """Returns the gradients by means and variances, [n, regions, words, 2, d]; zeros of no rows.

    u = Σ q (x - μ) / σ / (N √π) and v = Σ q (((x - μ) / σ)² - 1) / (N √(2π)), over N descriptors,
    with π the share of the word (VLFeat, vl/fisher.c).

    Args:
      moments: Σ q x and Σ q x², [n, regions, words, 2 d].
      shares: Σ q, [n, regions, words].
      counts: N, [n, regions].
    """
    first, second = jnp.split(moments, 2, -1)
    mean, var = mixture.mean[None, None], mixture.var[None, None]
    share = shares[..., None]
    by_mean = (first - mean * share) / jnp.sqrt(var)
    by_var = (second - 2 * mean * first + mean**2 * share) / var - share
    both = jnp.stack([by_mean, by_var / math.sqrt(2)], -2)
    weight = jax.nn.softmax(mixture.log_weight)[None, None, :, None, None]
    return both / (jnp.maximum(counts, 1)[..., None, None, None] * jnp.sqrt(weight))


def _members(places: jax.Array, regions: tuple[tuple[float, ...], ...]) -> jax.Array:
    """Returns which of the places [n, k, 2], 0 … 255, are in each region: float [n, regions, k]."""
    y, x = places[:, None, :, 0] / 256, places[:, None, :, 1] / 256
    top, bottom, left, right = jnp.array(regions).T[:, None, :, None]
    is_member = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return is_member.astype(jnp.float32)


def _over_length(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns `x` over its length along `axes`; zeros stay zeros."""
    squares = (x**2).sum(axes, keepdims=True)
    return x / jnp.sqrt(jnp.where(squares > 0, squares, 1))


def Model(variant: str = "256", **fields: Any) -> FisherVector:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(FisherVector, VARIANTS, variant, fields)
    variants.check_choices(model, CHOICES)
    most = min(kind.values for kind in model.kinds)
    if not 1 <= model.dims <= most:
        raise ValueError(f"model.dims={model.dims} must be from 1 to {most}")
    if model.words < 1 or model.sample < 1:
        raise ValueError("model.words and model.sample must be positive")
    return model


_SOURCE = "2·K·D of K words and D dimensions, §2.1; counted"


def _sizes(fisher: int) -> dict[str, tuple[int, ...]]:
    return {"fisher": (1, 1, fisher), "classifier": (1, 1, 20)}


# Of the 45,067 descriptors of the recipe `voc2007`, and 20 classes.
_INPUT = (45_067, 130, 1)
FACTS = {
    "256": Facts(_INPUT, 870_804, 4_154_654_720, _sizes(40_960), _SOURCE),
    "512": Facts(_INPUT, 1_731_220, 7_847_772_160, _sizes(81_920), _SOURCE),
    "256-xy": Facts(_INPUT, 892_308, 4_246_982_656, _sizes(41_984), _SOURCE),
    "512-xy": Facts(_INPUT, 1_774_228, 8_032_428_032, _sizes(83_968), _SOURCE),
    "256-spm": Facts(_INPUT, 6_605_204, 17_102_755_840, _sizes(327_680), _SOURCE, "327K"),
    "512-colours": Facts((45_067, 98, 1), 1_728_628, 7_732_387_840, _sizes(81_920), _SOURCE),
    "512-xy-colours": Facts((45_067, 226, 1), 3_502_836, 15_764_815_872, _sizes(165_888), _SOURCE),
}
