import Foundation
import Models
import Tensors
import Testing
import WeightFile

@testable import Converter

/// Which form the codes of a file have, and what the file says of it.
@Suite struct CodeFormTests {
  /// The form that the file is read as, and the strictest that all its codes keep.
  private func forms(_ file: WeightFile, _ checkpoint: MicroCheckpoint) throws -> (read: CodeForm, kept: CodeForm) {
    let source = MappedWeights(file)
    var read = Set<CodeForm>()
    var (keepsPairs, keepsFours) = (true, true)
    for case .matrix(let name, let shape, .quantized, let bias) in checkpoint.manifest.requests {
      if case .int8(_, _, _, let form) = try source.matrix(name, shape, .quantized, bias: bias).elements {
        read.insert(form)
      }
      let codes = try Unpacked(file: file).elements(name + ".weight", Int8.self).map { Int($0) }
      let quads = (shape.inputs + 3) / 4
      for first in stride(from: 0, to: codes.count, by: 2) {
        // [panel and tap][quad][output][two pairs]; the other half of a four is one quad, 32 codes, further.
        let quad = first / 32 % quads
        let pair = [codes[first], codes[first + 1]]
        keepsPairs = keepsPairs && fits(pair)
        guard quad % 2 == 0, quad + 1 < quads else { continue }
        keepsFours = keepsFours && fits(pair + [codes[first + 32], codes[first + 33]])
      }
    }
    #expect(read.count == 1)
    return (try #require(read.first), keepsPairs ? keepsFours ? .fours : .pairs : .full)
  }

  private func fits(_ codes: [Int]) -> Bool {
    codes.reduce(0) { $0 + max($1, 0) } <= 128 && codes.reduce(0) { $0 - min($1, 0) } <= 128
  }

  private func relativeError(_ report: ConversionReport) -> Double {
    report.rows.reduce(into: QuantisationError()) { sum, row in
      sum.signal += row.error.signal
      sum.noise += row.error.noise
    }.relative
  }

  @Test(
    "Codes have the form that is asked for, and by themselves the fastest that costs little",
    arguments: CodeForm.allCases)
  func codes(bestForm: CodeForm) throws {
    var checkpoint = try MicroCheckpoint()
    if bestForm != .full {
      // Instead of evenly drawn weights, most are small and a few large: of a Laplace distribution, or of its squares.
      var generator = Generator(7)
      for stage in Stage.allCases {
        for (name, tensor) in (checkpoint.stages[stage] ?? [:]).sorted(by: { $0.key < $1.key })
        where tensor.shape.count > 1 && tensor.values.count > 100 {
          checkpoint.stages[stage]?[name]?.values = generator.floats(tensor.values.count, -0.9999...0.9999).map {
            let laplace = $0 < 0 ? log(1 + $0) : -log(1 - $0)
            return bestForm == .pairs ? laplace : laplace * abs(laplace)
          }
        }
      }
    }
    var errors: [CodeForm?: Double] = [:]
    for form in [nil, .full, .pairs, .fours] as [CodeForm?] {
      let folder = try TemporaryFolder()
      var job = try checkpoint.write(to: folder)
      job.codes = form
      errors[form] = relativeError(try convert(job))
      let file = try WeightFile(path: job.output)
      let expected = form ?? bestForm
      let forms = try forms(file, checkpoint)
      #expect(forms.read == expected && forms.kept == expected)
      let limits = ["pair", "four"].map { file.metadata["audiotoken.weights.\($0)_limit"] }
      #expect(limits == [expected != .full, expected == .fours].map { $0 ? .uint32(128) : nil })
    }
    let (full, pairs) = (try #require(errors[.full]), try #require(errors[.pairs]))
    let fours = try #require(errors[.fours])
    #expect(errors[nil] == errors[bestForm])
    #expect(full < pairs && pairs < 2 * full && pairs < fours)
  }

  @Test("A file of float weights promises nothing about codes", arguments: [WeightType.float16, .float32])
  func codesOfFloats(_ type: WeightType) throws {
    for form in [nil, .full, .pairs] as [CodeForm?] {
      let folder = try TemporaryFolder()
      var job = try MicroCheckpoint().write(to: folder, weights: type)
      job.codes = form
      _ = try convert(job)
      #expect(try WeightFile(path: job.output).metadata["audiotoken.weights.pair_limit"] == nil)
    }
  }
}
