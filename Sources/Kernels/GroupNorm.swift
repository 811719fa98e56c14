import CKernels
import Tensors

/// What a group normalisation knows of a map: f64 sums of the elements and of their squares, [images, 2, channels].
package struct ChannelMoments {
  let images: Int
  let channels: Int
  let sums: UnsafeMutablePointer<Double>

  func sum(_ image: Int, _ channel: Int) -> UnsafeMutablePointer<Double> {
    sums + (2 * image * channels + channel)
  }
  func square(_ image: Int, _ channel: Int) -> UnsafeMutablePointer<Double> {
    sums + ((2 * image + 1) * channels + channel)
  }
}

/// The layer: gamma, beta [channels].
package struct GroupNormParameters {
  package let groups: Int
  package let gamma: UnsafePointer<Float>
  package let beta: UnsafePointer<Float>
  package let epsilon: Float

  package init(groups: Int, gamma: UnsafePointer<Float>, beta: UnsafePointer<Float>, epsilon: Float) {
    self.groups = groups
    self.gamma = gamma
    self.beta = beta
    self.epsilon = epsilon
  }
}

extension Run {
  /// Pixels of a line whose f32 sums are added before f64 takes over; part of the definition of the result.
  private static var chunk: Int { 64 }

  /// What normalises each image of `x` over its pixels and each group of channels, and then activates it. Refers to `x`;
  /// lives in the arena.
  package func groupNorm(
    _ x: JoinedMap, _ parameters: GroupNormParameters, activation: Activation
  ) -> GroupNormalised {
    groupNorm(x, parameters, activation: activation) { moments in
      guard x.images == 1 else { return add(x, to: moments) }
      let lineBytes = chunks(x) * 2 * x.channels * MemoryLayout<Float>.stride
      for lines in bands(of: x.height, bytes: lineBytes) { add(x.lines(lines), to: moments) }
    }
  }

  /// The same where `read` adds up the map, line after line in order, so that it need never be there as a whole.
  /// - Parameter x: has the map's size.
  package func groupNorm(
    _ x: JoinedMap, _ parameters: GroupNormParameters, activation: Activation, reading read: (ChannelMoments) -> Void
  ) -> GroupNormalised {
    let groups = parameters.groups
    precondition(x.channels % groups == 0)
    let factors = matrix(x.images, x.channels)
    let offsets = matrix(x.images, x.channels)
    scratch {
      let count = 2 * x.images * x.channels
      let moments = ChannelMoments(
        images: x.images, channels: x.channels, sums: arena.allocate(Double.self, count))
      serial { moments.sums.update(repeating: 0, count: count) }
      read(moments)
      parallel(.normalisation, x.images * groups) { range in
        for item in range {
          let (image, group) = item.quotientAndRemainder(dividingBy: groups)
          let channels = group * (x.channels / groups)..<(group + 1) * (x.channels / groups)
          let pixels = x.height * x.width
          let mean = channels.reduce(0) { $0 + moments.sum(image, $1).pointee } / Double(pixels * channels.count)
          let square = channels.reduce(0) { $0 + moments.square(image, $1).pointee } / Double(pixels * channels.count)
          let inverse = 1 / (max(0, square - mean * mean) + Double(parameters.epsilon)).squareRoot()
          for c in channels {
            let factor = inverse * Double(parameters.gamma[c])
            factors.row(image)[c] = Float(factor)
            offsets.row(image)[c] = Float(Double(parameters.beta[c]) - mean * factor)
          }
        }
      }
    }
    return GroupNormalised(map: x, factors: factors, offsets: offsets, activation: activation)
  }

  /// Of a line.
  private func chunks(_ x: JoinedMap) -> Int { x.width.roundedUp(to: Self.chunk) / Self.chunk }

  /// Adds the pixels of `x` to what is known of the lines before.
  package func add(_ x: JoinedMap, to moments: ChannelMoments) {
    precondition(x.images == moments.images && x.channels == moments.channels)
    scratch {
      let chunks = chunks(x)
      let parts = x.height * chunks  // of an image
      let sums = matrix(x.images * parts * 2, x.channels)
      parallel(.normalisation, x.images * parts, grain: 4) { range in
        for item in range {
          // The same lines of all images, which a thread most likely wrote itself.
          let (place, image) = item.quotientAndRemainder(dividingBy: x.images)
          let (lineOfImage, part) = place.quotientAndRemainder(dividingBy: chunks)
          let (line, index) = (image * x.height + lineOfImage, image * parts + place)
          let first = part * Self.chunk
          x.eachPart { map, column in
            var arguments = at_channel_sums(
              x: map.rows.row(line * x.width + first), rows: min(Self.chunk, x.width - first), channels: map.channels,
              sum: sums.row(2 * index) + column, square: sums.row(2 * index + 1) + column,
              halves: map.storage == .float16)
            kernels.channelSums(&arguments)
          }
        }
      }
      // A run of channels for each thread: the others wrote most of what it adds up, which comes faster in runs.
      let grain = max(32, (x.images * x.channels).roundedUp(to: pool.threads) / pool.threads)
      let runs = x.channels.roundedUp(to: grain) / grain
      parallel(.normalisation, x.images * runs) { range in
        for item in range {
          let (image, run) = item.quotientAndRemainder(dividingBy: runs)
          let first = run * grain
          for part in image * parts..<(image + 1) * parts {
            let (sum, square) = (sums.row(2 * part), sums.row(2 * part + 1))
            for c in first..<min(first + grain, x.channels) {
              moments.sum(image, c).pointee += Double(sum[c])
              moments.square(image, c).pointee += Double(square[c])
            }
          }
        }
      }
    }
  }
}
