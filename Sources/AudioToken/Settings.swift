/// Which part of which sound file to hear.
public struct SoundSelection: Sendable {
  public var path: String
  /// Where to begin, in seconds.
  public var start: Double
  /// How much to take, in seconds; nil: up to ten.
  public var seconds: Double?

  public init(path: String, start: Double = 0, seconds: Double? = nil) {
    self.path = path
    self.start = start
    self.seconds = seconds
  }
}

/// How to make a picture. What is nil is taken from the model.
public struct GenerationSettings: Sendable {
  /// The text; `<*>` in it stands for the sound.
  public var prompt = "a photo of <*>, 4k, high resolution"
  public var negativePrompt = ""
  /// Sampling steps; PNDM calls the UNet once more than that.
  public var steps = 50
  /// Classifier-free guidance; 1 or less evaluates the prompt alone.
  public var guidance: Float = 7.5
  public var sampler: SamplerChoice?
  /// Of the initial noise, which is the one that PyTorch's CPU generator gives for it.
  public var seed: UInt64 = 0
  /// Pixels, multiples of eight.
  public var width: Int?
  public var height: Int?
  /// Bytes of memory that the process may take, file pages included; nil: what is free.
  public var maxRAM: Int?

  public init() {}
}

public enum SamplerChoice: String, CaseIterable, Sendable {
  case pndm
  case ddim
}

/// A finished picture.
public struct Picture: Sendable {
  public let width: Int
  public let height: Int
  /// RGB, [height, width, 3].
  public let pixels: [UInt8]
  /// What made it, as the texts of its PNG file.
  public let provenance: [(key: String, value: String)]

  package init(width: Int, height: Int, pixels: [UInt8], provenance: [(key: String, value: String)]) {
    (self.width, self.height) = (width, height)
    self.pixels = pixels
    self.provenance = provenance
  }

  /// The bytes of a PNG file that carries the provenance as iTXt chunks.
  public func png() throws(AudioTokenError) -> [UInt8] {
    try rendering(AudioTokenError.init(_:)) { () throws(ImageError) in
      try PNGImage(width: width, height: height, pixels: pixels).encoded(texts: provenance)
    }
  }
}

/// What the pipeline is doing, in order.
public enum Step: String, CaseIterable, Sendable {
  case audio
  case beats
  case projector
  case text
  case unet
  case vae
}

/// Reported at the beginning of a stage (`done` 0), after each UNet call, and at the end of a stage (`done` = `total`).
public struct Progress: Sendable {
  public let step: Step
  public let done: Int
  public let total: Int
}
