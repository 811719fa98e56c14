import Foundation
import Kernels
import Tensors
import Testing
import WeightFile

@testable import Models

/// A tensor to write: zeros, of a type and dimensions of which either may be wrong.
private struct Declared {
  var name: String
  var type: TensorType
  var dimensions: [Int]
  /// Of f32; nil for zeros.
  var values: [Float]?
}

@Suite struct MappedWeightsTests {
  private static let shape = MatrixShape(outputs: 10, inputs: 6, taps: 9)

  private static let int8 = [
    Declared(name: "unet.a.weight", type: .i8, dimensions: [2, 18, 8, 4]),
    Declared(name: "unet.a.scale", type: .f32, dimensions: [16]),
    Declared(name: "unet.a.sum", type: .i32, dimensions: [9, 16]),
    Declared(name: "unet.a.bias", type: .f32, dimensions: [16]),
    Declared(name: "unet.a.tap_scale", type: .f32, dimensions: [9]),
  ]

  @discardableResult
  private func withFile<Result>(
    _ tensors: [Declared], pairLimit: MetadataValue? = nil, fourLimit: MetadataValue? = nil,
    convolutions: MetadataValue? = nil,
    _ body: (WeightFile) throws -> Result
  ) throws -> Result {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("models-\(UUID().uuidString).gguf").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    let declarations = tensors.map { TensorDeclaration(name: $0.name, type: $0.type, dimensions: $0.dimensions) }
    var metadata = Metadata(file: path)
    metadata["audiotoken.weights.pair_limit"] = pairLimit
    metadata["audiotoken.weights.four_limit"] = fourLimit
    metadata["audiotoken.weights.convolutions"] = convolutions
    let writer = try WeightFileWriter(path: path, metadata: metadata, tensors: declarations)
    for (tensor, declaration) in zip(tensors, declarations) {
      let zeros = [UInt8](repeating: 0, count: try #require(declaration.checkedByteCount))
      let bytes = tensor.values?.withUnsafeBytes { Array($0) } ?? zeros
      try bytes.withUnsafeBytes { try writer.write(declaration.name, $0) }
    }
    try writer.finish()
    return try body(try WeightFile(path: path))
  }

  /// The error of asking for the matrix, or nil.
  private func refusal(
    _ tensors: [Declared], _ precision: Precision = .quantized, shape: MatrixShape = Self.shape
  ) throws -> WeightError? {
    try withFile(tensors) { file in
      do throws(WeightError) {
        _ = try MappedWeights(file).matrix("unet.a", shape, precision, bias: true)
        return nil
      } catch {
        #expect(error.description.contains(file.path) && error.description.hasSuffix("convert the model again."))
        return error
      }
    }
  }

  @Test("Matrices of all three types are found where they are mapped")
  func matrices() throws {
    #expect(try refusal(Self.int8) == nil)
    for type in [TensorType.f32, .f16] {
      let weight = Declared(name: "unet.a.weight", type: type, dimensions: [2, 54, 8])
      #expect(try refusal([weight, Self.int8[3]]) == nil)
    }
    let f32 = Declared(name: "unet.a.weight", type: .f32, dimensions: [2, 54, 8])
    #expect(try refusal([f32, Self.int8[3]], .kept) == nil)
    try withFile(Self.int8) { file in
      let matrix = try MappedWeights(file).matrix("unet.a", Self.shape, .quantized, bias: true)
      let scale = try #require(file["unet.a.scale"])
      guard case .int8(_, let found, _, _) = matrix.elements else { return fail("not int8") }
      #expect(UnsafeRawPointer(found) == file.bytes(of: scale), "the scales are a copy")
    }
  }

  @Test("Only a file that promises the limits that the kernels rely on is read as pairs or fours")
  func forms() throws {
    let others: [MetadataValue?] = [
      nil, .uint32(0), .uint32(127), .uint32(129), .uint32(.max), .uint64(128), .int32(128), .float32(128), .bool(true),
      .string("128"),
    ]
    func form(pairs: MetadataValue?, fours: MetadataValue?) throws -> CodeForm? {
      try withFile(Self.int8, pairLimit: pairs, fourLimit: fours) { file in
        let matrix = try MappedWeights(file).matrix("unet.a", Self.shape, .quantized, bias: true)
        guard case .int8(_, _, _, let form) = matrix.elements else { return nil }
        return form
      }
    }
    let promised = MetadataValue.uint32(128)
    #expect(try form(pairs: promised, fours: promised) == .fours)
    for other in others {
      #expect(try form(pairs: promised, fours: other) == .pairs, "\(String(describing: other))")
      #expect(try form(pairs: other, fours: other) == .full, "\(String(describing: other))")
    }
  }

  @Test("A convolution is transformed where the file says so and its network asks for it")
  func transformed() throws {
    let shape = MatrixShape(outputs: 32, inputs: 32, taps: 9)
    func matrix(
      _ precision: Precision, says: MetadataValue? = .string("winograd"), lastScale: Float = 1, verified: Bool = false
    ) throws -> PackedMatrix {
      let tensors = [
        Declared(name: "unet.a.weight", type: .i8, dimensions: [4, 72, 8, 4]),
        Declared(name: "unet.a.scale", type: .f32, dimensions: [32]),
        Declared(name: "unet.a.sum", type: .i32, dimensions: [9, 32]),
        Declared(name: "unet.a.bias", type: .f32, dimensions: [32]),
        Declared(
          name: "unet.a.tap_scale", type: .f32, dimensions: [9], values: [1, 1, 1, 1, 1, 1, 1, 1, lastScale]),
      ]
      return try withFile(tensors, pairLimit: .uint32(128), convolutions: says) { file in
        let source: any WeightSource = verified ? VerifiedWeights(file) : MappedWeights(file)
        let matrix = try source.matrix("unet.a", shape, precision, bias: true)
        guard case .int8(_, _, _, let form) = matrix.elements else { return matrix }
        #expect(form == (matrix.isTransformed ? .full : .pairs))
        return matrix
      }
    }
    #expect(try matrix(.transformed).isTransformed)
    #expect(try matrix(.transformed, verified: true).isTransformed)
    #expect(try !matrix(.quantized).isTransformed)
    #expect(try !matrix(.transformed, says: nil).isTransformed)
    for says in [MetadataValue.string("direct"), .string(""), .bool(true)] {
      #expect(throws: WeightError.self, "\(says)") { try matrix(.transformed, says: says) }
    }
    for other in [0.5, 0, 2, .nan, .infinity, Float(1).nextUp, -1] {
      #expect(throws: WeightError.self, "\(other)") {
        try matrix(.transformed, lastScale: other, verified: true)
      }
    }
  }

  @Test("A missing tensor is named", arguments: 0..<5)
  func missing(_ index: Int) throws {
    var tensors = Self.int8
    let name = tensors.remove(at: index).name
    guard case .missing(_, name)? = try refusal(tensors) else { return fail("\(name) is not missed") }
  }

  @Test("A tensor of another type is named with both types", arguments: 0..<5)
  func wrongType(_ index: Int) throws {
    var tensors = Self.int8
    tensors[index].type = index == 2 ? .f32 : .i32
    guard case .type(_, tensors[index].name, let expected, "\(tensors[index].type)")? = try refusal(tensors) else {
      return fail("\(tensors[index].name) of another type is taken")
    }
    #expect(expected.contains(["int8", "f32", "i32", "f32", "f32"][index]))
  }

  @Test("Layers that stay float take no int8 and no f16")
  func kept() throws {
    let f16 = Declared(name: "unet.a.weight", type: .f16, dimensions: [2, 54, 8])
    for tensors in [Self.int8, [f16, Self.int8[3]]] {
      guard case .type(_, "unet.a.weight", "float32", _)? = try refusal(tensors, .kept) else {
        Issue.record("taken")
        continue
      }
    }
  }

  @Test("A tensor of another shape is named with both shapes", arguments: 0..<5)
  func wrongShape(_ index: Int) throws {
    for change in [-1, 1] {
      var tensors = Self.int8
      let last = tensors[index].dimensions.count - 1
      tensors[index].dimensions[last] += change
      let error = try refusal(tensors)
      guard case .shape(_, tensors[index].name, Self.int8[index].dimensions, tensors[index].dimensions)? = error else {
        Issue.record("\(tensors[index].name) \(tensors[index].dimensions): \(String(describing: error))")
        continue
      }
    }
    // As many elements in another order are not the same tensor either.
    var tensors = Self.int8
    tensors[0].dimensions = [18, 2, 8, 4]
    guard case .shape? = try refusal(tensors) else { return fail("transposed panels are taken") }
  }

  @Test("Tables and vectors are checked like matrices")
  func tablesAndVectors() throws {
    let weight = Declared(name: "text.t.weight", type: .i8, dimensions: [5, 6])
    let scale = Declared(name: "text.t.scale", type: .f32, dimensions: [5])
    func table(_ tensors: [Declared]) throws -> WeightError? {
      try withFile(tensors) { file in
        do throws(WeightError) { _ = try MappedWeights(file).table("text.t", rows: 5, columns: 6) } catch {
          return error
        }
        return nil
      }
    }
    #expect(try table([weight, scale]) == nil)
    #expect(try table([Declared(name: "text.t.weight", type: .f16, dimensions: [5, 6])]) == nil)
    guard case .missing(_, "text.t.scale")? = try table([weight]) else { return fail("no scale") }
    guard case .missing(_, "text.t.weight")? = try table([scale]) else { return fail("no weight") }
    guard
      case .type(_, "text.t.weight", _, "i32")? = try table([
        Declared(name: "text.t.weight", type: .i32, dimensions: [5, 6])
      ])
    else { return fail("i32") }
    guard
      case .shape(_, "text.t.weight", [5, 6], [6, 5])? = try table([
        Declared(name: "text.t.weight", type: .f32, dimensions: [6, 5])
      ])
    else { return fail("transposed") }

    try withFile([Declared(name: "unet.v", type: .f32, dimensions: [4]), weight]) { file in
      let weights = MappedWeights(file)
      _ = try weights.vector("unet.v", [4])
      #expect(throws: WeightError.shape(file: file.path, tensor: "unet.v", expected: [5], found: [4])) {
        try weights.vector("unet.v", [5])
      }
      #expect(throws: WeightError.missing(file: file.path, tensor: "unet.w")) { try weights.vector("unet.w", [4]) }
      #expect(throws: WeightError.type(file: file.path, tensor: "text.t.weight", expected: "f32", found: "i8")) {
        try weights.vector("text.t.weight", [5, 6])
      }
    }
  }

  @Test("A file without weights is refused at the first one")
  func empty() throws {
    try withFile([]) { file in
      #expect(throws: WeightError.missing(file: file.path, tensor: "beats.patch_embedding.weight")) {
        try Networks(MappedWeights(file), Micro.configuration)
      }
    }
  }
}
