import Foundation
import Tensors
import Testing
import WeightFile

@testable import Models

@Suite struct VerifiedWeightsTests {
  private static let shape = MatrixShape(outputs: 10, inputs: 18, taps: 9)

  /// Codes of a matrix, with the numbers that a file records of them.
  private struct Codes {
    /// Small enough for any form.
    var values: [Int8] = (0..<2 * 9 * 5 * 32).map { (index: Int) in Int8(index * 7 % 63 - 31) }
    var wrongSum: (output: Int, tap: Int)?

    /// These, and zeros for the other inputs.
    mutating func set(output: Int, tap: Int, inputs: [Int: Int8]) {
      for input in 0..<20 { values[place(output, tap, input)] = inputs[input] ?? 0 }
    }

    /// int8 [panels, taps, inputs/4, 8, 4].
    func place(_ output: Int, _ tap: Int, _ input: Int) -> Int {
      (((output / 8 * 9 + tap) * 5 + input / 4) * 8 + output % 8) * 4 + input % 4
    }

    var sums: [Int32] {
      (0..<9).flatMap { tap in
        (0..<16).map { output in
          let isWrong = wrongSum.map { $0 == (output, tap) } ?? false
          return (0..<20).reduce(isWrong ? 1 : 0) { $0 + Int32(values[place(output, tap, $1)]) }
        }
      }
    }
  }

  /// The forms that a file may promise of these codes.
  private func accepted(_ codes: Codes) throws -> Set<CodeForm> {
    try Set(CodeForm.allCases.filter { try isAccepted(codes, as: $0) })
  }

  private func isAccepted(_ codes: Codes, as form: CodeForm) throws -> Bool {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("models-\(UUID().uuidString).gguf").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    var metadata = Metadata(file: path)
    if form != .full { metadata[MappedWeights.pairLimitKey] = .uint32(128) }
    if form == .fours { metadata[MappedWeights.fourLimitKey] = .uint32(128) }
    let writer = try WeightFileWriter(
      path: path, metadata: metadata,
      tensors: [
        TensorDeclaration(name: "a.weight", type: .i8, dimensions: [2, 45, 8, 4]),
        TensorDeclaration(name: "a.scale", type: .f32, dimensions: [16]),
        TensorDeclaration(name: "a.sum", type: .i32, dimensions: [9, 16]),
        TensorDeclaration(name: "a.tap_scale", type: .f32, dimensions: [9]),
      ])
    try codes.values.withUnsafeBytes { try writer.write("a.weight", $0) }
    try [Float](repeating: 1, count: 16).withUnsafeBytes { try writer.write("a.scale", $0) }
    try codes.sums.withUnsafeBytes { try writer.write("a.sum", $0) }
    try [Float](repeating: 1, count: 9).withUnsafeBytes { try writer.write("a.tap_scale", $0) }
    try writer.finish()
    let file = try WeightFile(path: path)
    do throws(WeightError) {
      _ = try VerifiedWeights(file).matrix("a", Self.shape, .quantized, bias: false)
      return true
    } catch {
      #expect(error == .codes(file: path, tensor: "a.weight"))
      return false
    }
  }

  @Test("Codes that break what the file promises are found, wherever they lie", arguments: [(0, 0), (7, 8), (9, 4)])
  func forms(output: Int, tap: Int) throws {
    let all = Set(CodeForm.allCases)
    func forms(_ inputs: [Int: Int8]) throws -> Set<CodeForm> {
      var codes = Codes()
      codes.set(output: output, tap: tap, inputs: inputs)
      return try accepted(codes)
    }
    #expect(try accepted(Codes()) == all)
    for first in [0, 6, 12, 18] {
      #expect(try forms([first: 64, first + 1: 64]) == all)
      #expect(try forms([first: -64, first + 1: -64]) == all)
      #expect(try forms([first: 127, first + 1: -127]) == all)
      #expect(try forms([first: 64, first + 1: 65]) == [.full])
      #expect(try forms([first: -65, first + 1: -64]) == [.full])
    }
    #expect(try forms([1: 127, 2: 127]) == all, "two pairs")
    #expect(try forms([2: 50, 3: 14, 6: 32, 7: 32]) == all)
    #expect(try forms([2: 50, 3: 15, 6: 32, 7: 32]) == [.full, .pairs])
    #expect(try forms([8: -50, 9: -14, 12: -33, 13: -32]) == [.full, .pairs])
    #expect(try forms([4: 64, 5: 64, 8: 64, 9: 64]) == all, "two eights")
  }

  @Test("A sum that is not that of its codes is found, wherever it lies", arguments: [(0, 0), (7, 8), (9, 4)])
  func sums(output: Int, tap: Int) throws {
    var codes = Codes()
    codes.wrongSum = (output, tap)
    #expect(try accepted(codes) == [])
  }
}
