import Glibc

/// torch's CPU generator: the numbers that `torch.Generator("cpu").manual_seed(seed)` and `torch.randn` give, to float rounding.
package struct NoiseGenerator: Sendable {
  private var engine: MersenneTwister
  /// The second value of a Box-Muller pair that the short path has not used yet.
  private var leftOver: Double?

  /// torch seeds its engine with the low 32 bits.
  package init(seed: UInt64) { engine = MersenneTwister(seed: UInt32(truncatingIfNeeded: seed)) }

  /// `torch.randn(count)`: the next `count` normally distributed numbers, f32 [count].
  package mutating func normal(count: Int) -> [Float] {
    precondition(count >= 0)
    if count < 16 { return (0..<count).map { _ in Float(nextNormal()) } }
    var values = (0..<count).map { _ in nextUniform() }
    for block in 0..<count / 16 { Self.transform(&values, at: 16 * block) }
    if count % 16 != 0 {
      for index in count - 16..<count { values[index] = nextUniform() }
      Self.transform(&values, at: count - 16)
    }
    return values
  }

  /// In [0, 1), 24 bits.
  private mutating func nextUniform() -> Float { Float(engine.next() & 0xFF_FFFF) * 0x1p-24 }

  /// In [0, 1), 53 bits of two draws, the first one the upper half.
  private mutating func nextLongUniform() -> Double {
    let upper = UInt64(engine.next())
    let lower = UInt64(engine.next())
    return Double((upper << 32 | lower) & 0x1F_FFFF_FFFF_FFFF) * 0x1p-53
  }

  private mutating func nextNormal() -> Double {
    if let value = leftOver {
      leftOver = nil
      return value
    }
    let angle = 2 * Double.pi * nextLongUniform()
    let radius = sqrt(-2 * log1p(-nextLongUniform()))
    leftOver = radius * sin(angle)
    return radius * cos(angle)
  }

  /// Box-Muller over sixteen uniforms: eight radii, then eight angles.
  private static func transform(_ values: inout [Float], at start: Int) {
    for index in start..<start + 8 {
      let radius = sqrt(-2 * log(Double(1 - values[index])))
      let angle = 2 * Double.pi * Double(values[index + 8])
      values[index] = Float(radius * cos(angle))
      values[index + 8] = Float(radius * sin(angle))
    }
  }
}

/// MT19937 of Matsumoto and Nishimura (1998).
private struct MersenneTwister: Sendable {
  private var state: [UInt32]
  private var position = 624

  init(seed: UInt32) {
    state = [seed]
    for index in 1..<624 {
      let previous = state[index - 1]
      state.append(1_812_433_253 &* (previous ^ previous >> 30) &+ UInt32(index))
    }
  }

  mutating func next() -> UInt32 {
    if position == 624 { refill() }
    var value = state[position]
    position += 1
    value ^= value >> 11
    value ^= value << 7 & 0x9D2C_5680
    value ^= value << 15 & 0xEFC6_0000
    return value ^ value >> 18
  }

  private mutating func refill() {
    for index in 0..<624 {
      let mixed = state[index] & 0x8000_0000 | state[(index + 1) % 624] & 0x7FFF_FFFF
      state[index] = state[(index + 397) % 624] ^ mixed >> 1 ^ (mixed & 1 == 0 ? 0 : 0x9908_B0DF)
    }
    position = 0
  }
}
