import CKernels
import Tensors

extension Run {
  /// Pixels whose f32 sums are added before f64 takes over; part of the definition of the result.
  private static var chunk: Int { 64 }

  /// Group normalisation of each image over its pixels and each group of channels, then `activation`.
  /// gamma, beta: [channels]. `out` may be `x`.
  package func groupNorm(
    _ x: FeatureMap, into out: FeatureMap, groups: Int, gamma: UnsafePointer<Float>, beta: UnsafePointer<Float>,
    epsilon: Float, activation: Activation
  ) {
    precondition(out.pixels == x.pixels && out.channels == x.channels)
    scratch {
      let normalised = RowSource.groupNorm(
        groupNorm(JoinedMap(x), groups: groups, gamma: gamma, beta: beta, epsilon: epsilon, activation: activation))
      parallel(.normalisation, x.pixels, grain: max(1, 16_384 / x.channels)) { range in
        compute(normalised, range, into: out.tokens.row(range.lowerBound))
      }
    }
  }

  /// What normalises `x`, which the result refers to; in the arena.
  package func groupNorm(
    _ x: JoinedMap, groups: Int, gamma: UnsafePointer<Float>, beta: UnsafePointer<Float>, epsilon: Float,
    activation: Activation
  ) -> GroupNormalised {
    precondition(x.channels % groups == 0)
    let pixels = x.height * x.width
    let chunks = pixels.roundedUp(to: Self.chunk) / Self.chunk
    let factors = matrix(x.images, x.channels)
    let offsets = matrix(x.images, x.channels)
    scratch {
      let sums = matrix(x.images * chunks * 2, x.channels)
      parallel(.normalisation, x.images * chunks) { range in
        for item in range {
          let (image, part) = item.quotientAndRemainder(dividingBy: chunks)
          let first = part * Self.chunk
          var column = 0
          for map in x.parts {
            var arguments = at_channel_sums(
              x: map.tokens.row(image * pixels + first), rows: min(Self.chunk, pixels - first), channels: map.channels,
              sum: sums.row(2 * item) + column, square: sums.row(2 * item + 1) + column)
            kernels.channelSums(&arguments)
            column += map.channels
          }
        }
      }
      parallel(.normalisation, x.images * groups) { range in
        for item in range {
          let (image, group) = item.quotientAndRemainder(dividingBy: groups)
          let channels = group * (x.channels / groups)..<(group + 1) * (x.channels / groups)
          let partial = sums.rows(image * chunks * 2..<(image + 1) * chunks * 2)
          let (mean, inverse) = Self.moments(partial, channels, count: pixels * channels.count, epsilon: epsilon)
          for c in channels {
            let factor = inverse * Double(gamma[c])
            factors.row(image)[c] = Float(factor)
            offsets.row(image)[c] = Float(Double(beta[c]) - mean * factor)
          }
        }
      }
    }
    return GroupNormalised(map: x, factors: factors, offsets: offsets, activation: activation)
  }

  /// Mean and 1 / standard deviation of a group from rows of alternating sums and sums of squares.
  private static func moments(_ partial: Matrix, _ channels: Range<Int>, count: Int, epsilon: Float) -> (Double, Double)
  {
    var sum = 0.0
    var square = 0.0
    for row in stride(from: 0, to: partial.rows, by: 2) {
      for c in channels {
        sum += Double(partial.row(row)[c])
        square += Double(partial.row(row + 1)[c])
      }
    }
    let mean = sum / Double(count)
    let variance = max(0, square / Double(count) - mean * mean)
    return (mean, 1 / (variance + Double(epsilon)).squareRoot())
  }
}
