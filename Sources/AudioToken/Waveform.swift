/// The ten seconds of sound that the models hear: f32 [160,000] at 16 kHz.
package enum Waveform {
  /// Samples a second.
  package static let rate = 16_000
  /// Ten seconds.
  package static let count = 160_000

  /// Resamples a sound to 16 kHz, repeats it from its beginning until it fills ten seconds, and cuts it there.
  ///
  /// AudioToken's own code repeats ten times at most, so that a sound shorter than a second leaves it less than ten seconds and
  /// fewer features; here it is repeated as often as needed. From one second on both do the same.
  package static func prepare(_ sound: Sound) -> [Float] {
    precondition(!sound.samples.isEmpty, "a sound has at least one sample")
    let resampler = Resampler(from: sound.rate, to: rate)
    let once = resampler(sound.samples, limit: count)
    guard once.count < count else { return once }
    var repeated: [Float] = []
    repeated.reserveCapacity(count)
    while repeated.count < count { repeated.append(contentsOf: once.prefix(count - repeated.count)) }
    return repeated
  }

  /// Reads a part of a sound file as `Sound.read` does and prepares it.
  package static func prepare(path: String, start: Double = 0, seconds: Double? = nil) throws(AudioError) -> [Float] {
    prepare(try Sound.read(path: path, start: start, seconds: seconds))
  }
}
