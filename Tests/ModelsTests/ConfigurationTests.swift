import Tensors
import Testing
import WeightFile

@testable import Models

@Suite struct ConfigurationTests {
  /// The key that a set of sizes is refused for; nil where it is taken.
  private func refusedKey(_ metadata: Metadata) -> String? {
    do throws(WeightFileError) { _ = try ModelConfiguration(metadata) } catch {
      guard case .metadata("m.gguf", let key, _, _) = error else {
        Issue.record("\(error)")
        return nil
      }
      return key
    }
    return nil
  }

  private func refusedKey(_ key: String, _ value: MetadataValue?) -> String? {
    var metadata = Micro.metadata
    metadata["audiotoken." + key] = value
    return refusedKey(metadata)
  }

  @Test("Sizes that were written are read back")
  func roundTrip() throws {
    #expect(try ModelConfiguration(Micro.metadata) == Micro.configuration)
    var other = Micro.configuration
    other.unet.midBlock = false
    other.unet.frequencyShift = 1
    other.unet.flipSinToCos = false
    other.vae.midAttention = false
    other.vae.postQuantConvolution = false
    other.beats.deepNorm = false
    other.text.quickGELU = false
    var metadata = Metadata(file: "m.gguf")
    other.write(to: &metadata)
    #expect(try ModelConfiguration(metadata) == other)
  }

  @Test("Every size has to be there, and of its type")
  func missingAndMistyped() {
    #expect(Micro.metadata.entries.count > 35)
    for entry in Micro.metadata.entries {
      let key = String(entry.key.dropFirst("audiotoken.".count))
      #expect(refusedKey(key, nil) == entry.key)
      #expect(refusedKey(key, .string("8")) == entry.key)
      #expect(refusedKey(key, .array(["8"])) == entry.key)
    }
  }

  @Test("No size may be zero, negative or absurd")
  func hostileSizes() {
    for entry in Micro.metadata.entries where entry.value.integer != nil {
      let key = String(entry.key.dropFirst("audiotoken.".count))
      for value in [-1, Int.min, Int.max, 1 << 32, (1 << 20) + 1] {
        #expect(refusedKey(key, .int64(Int64(value))) == entry.key, "\(key) \(value)")
      }
      if key != "unet.frequency_shift" { #expect(refusedKey(key, .uint32(0)) == entry.key, "\(key)") }
      #expect(refusedKey(key, .uint64(.max)) == entry.key)
    }
    for key in ["unet.epsilon", "text.epsilon", "vae.scaling_factor"] {
      for value in [0, -1, .nan, .infinity, -.infinity, 1e300] as [Double] {
        #expect(refusedKey(key, .float64(value)) == "audiotoken." + key, "\(key) \(value)")
      }
    }
  }

  @Test("Every list has a value for each level, and all are possible")
  func hostileLists() {
    for entry in Micro.metadata.entries {
      guard case .array(let list) = entry.value else { continue }
      let key = String(entry.key.dropFirst("audiotoken.".count))
      if let values = list.integers.map(Array.init) {
        for hostile in [-1, 0, Int.max, 1 << 15] {
          var changed = values
          changed[changed.count - 1] = hostile
          #expect(refusedKey(key, .array(changed.map(Int64.init))) == entry.key, "\(key) \(hostile)")
        }
        let longer = refusedKey(key, .array((values + [values[0]]).map(Int64.init)))
        let shorter = refusedKey(key, .array(values.dropLast().map(Int64.init)))
        // One level more of the VAE is another VAE; the levels of the UNet are what its other lists have to match.
        if key != "vae.block_channels" {
          #expect(longer?.hasPrefix("audiotoken.unet.") ?? false)
          #expect(shorter?.hasPrefix("audiotoken.unet.") ?? false)
        }
        #expect(refusedKey(key, .array([Int64]())) == entry.key)
        #expect(refusedKey(key, .array([Int64](repeating: 4, count: 1 << 20))) == entry.key)
      } else {
        #expect(refusedKey(key, .array([true])) == entry.key)
        #expect(refusedKey(key, .array([true, true, true, true])) == entry.key)
        #expect(refusedKey(key, .array([UInt8(1), 1, 1])) == entry.key)
      }
    }
  }

  @Test("Sizes have to divide as the layers divide them")
  func divisibility() {
    for (key, value, refused) in [
      ("beats.heads", 5, "beats.width"), ("beats.position_groups", 5, "beats.width"),
      ("beats.patch", 129, "beats.patch"),
      ("beats.layers", 11, "beats.layers"), ("beats.buckets", 3, "beats.buckets"),
      ("beats.maximum_distance", 8, "beats.buckets"), ("text.heads", 4, "text.width"),
      ("unet.groups", 3, "unet.block_channels"), ("vae.groups", 3, "vae.block_channels"),
      ("vae.output_channels", 4, "vae.output_channels"), ("unet.frequency_shift", 4, "unet.frequency_shift"),
      ("projector.feature_width", 73, "projector.feature_width"),
      ("projector.token_width", 19, "projector.token_width"),
      ("unet.context_width", 19, "unet.context_width"), ("unet.latent_channels", 5, "vae.latent_channels"),
    ] {
      #expect(refusedKey(key, .uint32(UInt32(value))) == "audiotoken." + refused, "\(key) \(value)")
    }
    #expect(refusedKey("unet.heads", .array([UInt32(3), 4, 3])) == "audiotoken.unet.block_channels")
    #expect(refusedKey("unet.block_channels", .array([UInt32(9), 16, 12])) == "audiotoken.unet.block_channels")
  }

  /// Answers every request with one pointer and counts.
  private final class Counting: WeightSource {
    private(set) var requests = 0
    private(set) var longest = 0
    private let nothing = UnsafeMutablePointer<Float>.allocate(capacity: 1)
    deinit { nothing.deallocate() }

    private func count(_ name: String) {
      requests += 1
      longest = max(longest, name.utf8.count)
    }
    func matrix(_ name: String, _ shape: MatrixShape, _: Precision, bias: Bool) -> PackedMatrix {
      count(name)
      precondition(shape.packedDimensions(.i8).allSatisfy { $0 > 0 })
      return PackedMatrix(elements: .float32(nothing), shape: shape, bias: nil)
    }
    func vector(_ name: String, _: [Int]) -> UnsafePointer<Float> {
      count(name)
      return UnsafePointer(nothing)
    }
    func table(_ name: String, rows: Int, columns: Int) -> EmbeddingTable {
      count(name)
      return EmbeddingTable(elements: .float32(nothing), rows: rows, columns: columns)
    }
  }

  /// Every size as large as it is allowed to be.
  private static let largest: ModelConfiguration = {
    let size = 1 << 14
    var c = Micro.configuration
    c.beats = BEATsConfiguration(
      patch: 128, embedWidth: size, width: size, layers: 256, heads: size, feedForward: size, positionKernel: size,
      positionGroups: 1, buckets: size, maximumDistance: size, deepNorm: true)
    c.projector = ProjectorConfiguration(featureWidth: 3 * size, tokenWidth: size)
    c.text = TextConfiguration(
      vocabulary: 1 << 20, positions: size, width: size, layers: 256, heads: 1, feedForward: size, quickGELU: false,
      epsilon: 1e-5)
    c.unet.latentChannels = size
    c.unet.blockChannels = [Int](repeating: size, count: 8)
    c.unet.downAttention = [Bool](repeating: true, count: 8)
    c.unet.upAttention = c.unet.downAttention
    c.unet.layersPerBlock = [Int](repeating: 16, count: 8)
    c.unet.transformerDepth = c.unet.layersPerBlock
    c.unet.heads = [Int](repeating: 1, count: 8)
    c.unet.contextWidth = size
    c.unet.groups = 1
    c.vae.latentChannels = size
    c.vae.blockChannels = c.unet.blockChannels
    c.vae.layersPerBlock = 16
    c.vae.groups = size
    return c
  }()

  @Test("The largest networks that a file may ask for are built in a moment and take little memory")
  func largestNetworks() throws {
    var metadata = Metadata(file: "m.gguf")
    Self.largest.write(to: &metadata)
    #expect(try ModelConfiguration(metadata) == Self.largest)
    let source = Counting()
    _ = try Networks(source, Self.largest)
    #expect(source.requests > 10_000 && source.requests < 200_000)
    #expect(source.longest + ".weight".count <= 63, "a name that the file cannot hold")
  }
}
