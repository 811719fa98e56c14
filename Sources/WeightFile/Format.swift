#if _endian(big)
  #error("Weight files are little-endian and are read in place.")
#endif

/// The constants of GGUF version 3 and of our use of it; `Weights/README.md` describes the file byte by byte.
package enum Format {
  /// The first four bytes of every GGUF file.
  static let magic: [UInt8] = Array("GGUF".utf8)
  static let version: UInt32 = 3
  /// Magic, version, tensor count and metadata count.
  static let fixedHeaderBytes = 24
  static let maximumDimensions = 4
  static let maximumNameBytes = 64
  static let maximumKeyBytes = 65_535
  static let defaultAlignment = 32
  /// What the writer uses: a cache line, and the widest vector register.
  package static let alignment = 64

  package static let architecture = "audiotoken"
  /// 2 where a file says how its convolutions are to be computed, which readers of version 1 do not know.
  package static let formatVersions = 1...2

  package enum Key {
    package static let architecture = "general.architecture"
    package static let alignment = "general.alignment"
    package static let formatVersion = "audiotoken.format_version"
    package static let convolutions = "audiotoken.weights.convolutions"
    package static let checksums = "audiotoken.tensor.crc32"
  }

  /// The next multiple of `alignment`, a power of two, or nil where that is no Int.
  static func aligned(_ offset: Int, to alignment: Int) -> Int? {
    let (sum, overflow) = offset.addingReportingOverflow(alignment - 1)
    return overflow ? nil : sum & ~(alignment - 1)
  }

  /// Names and keys are printable ASCII without spaces, so that an error can show them.
  static func isPrintableName(_ bytes: some Sequence<UInt8>) -> Bool {
    bytes.allSatisfy { (0x21...0x7E).contains($0) }
  }
}

/// The element type of a tensor, with the number that GGUF gives it.
package enum TensorType: UInt32, Sendable, CaseIterable, CustomStringConvertible {
  case f32 = 0
  case f16 = 1
  case i8 = 24
  case i32 = 26

  package var elementBytes: Int {
    switch self {
    case .f32, .i32: 4
    case .f16: 2
    case .i8: 1
    }
  }

  package var description: String {
    switch self {
    case .f32: "f32"
    case .f16: "f16"
    case .i8: "i8"
    case .i32: "i32"
    }
  }
}

/// What a writer has to know of a tensor before its elements.
package struct TensorDeclaration: Sendable, Equatable {
  /// At most 63 printable ASCII characters, no spaces.
  package var name: String
  package var type: TensorType
  /// Row-major: the last dimension is adjacent in memory. One to four, each at least 1.
  package var dimensions: [Int]

  package init(name: String, type: TensorType, dimensions: [Int]) {
    self.name = name
    self.type = type
    self.dimensions = dimensions
  }

  /// The size of the elements, or nil where it is no Int.
  package var checkedByteCount: Int? {
    var bytes = type.elementBytes
    for dimension in dimensions {
      let (product, overflow) = bytes.multipliedReportingOverflow(by: dimension)
      if overflow { return nil }
      bytes = product
    }
    return bytes
  }
}

/// A tensor of an opened file; its offset and size have been checked against the file.
package struct TensorInfo: Sendable, Equatable {
  package let name: String
  package let type: TensorType
  /// Row-major: the last dimension is adjacent in memory.
  package let dimensions: [Int]
  /// Bytes from the start of the file.
  package let offset: Int
  package let byteCount: Int

  package var elementCount: Int { byteCount / type.elementBytes }
  var end: Int { offset + byteCount }
}
