import Foundation
import Testing

@testable import Models

@Suite struct BEATsTests {
  private struct Table: Decodable {
    let buckets: Int
    let maximumDistance: Int
    let first: Int
    let table: [Int]
  }

  @Test("Every distance falls into the bucket that torch's f32 puts it in")
  func buckets() throws {
    let data = try Data(contentsOf: URL(fileURLWithPath: fixture("buckets.json")))
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let tables = try decoder.decode([Table].self, from: data)
    #expect(tables.count == 4)
    for table in tables {
      let found = table.table.indices.map {
        BEATs.bucket(table.first + $0, table.buckets, table.maximumDistance)
      }
      #expect(found == table.table, "\(table.buckets) buckets up to \(table.maximumDistance)")
    }
  }

  @Test("No distance leaves the table of buckets, whatever sizes a file allows")
  func bucketRange() {
    for (buckets, maximum) in [(4, 2), (5, 2), (7, 16384), (16384, 4097), (16383, 16384), (320, 81)] {
      let found = (-20_000...20_000).map { BEATs.bucket($0, buckets, maximum) }
      #expect(found.allSatisfy { (0..<buckets).contains($0) }, "\(buckets) buckets up to \(maximum)")
    }
  }

  @Test("The positions' convolution is added after a GELU, its last frame dropped", arguments: [6, 7])
  func positionConvolution(taps: Int) throws {
    var configuration = Micro.configuration.beats
    configuration.positionKernel = taps
    let weights = RandomWeights(.float32)
    let position = try BEATs.PositionConvolution(Weights(weights, "p"), configuration)
    let dense = try #require(weights.matrices["p"])
    let run = try makeRun()
    var generator = Generator(taps)
    let (tokens, width) = (11, configuration.width)
    let values = generator.floats(tokens * width)
    let x = run.matrix(tokens, width, values)
    position(x, run)
    let perGroup = width / configuration.positionGroups
    var expected: [Bounded] = []
    for t in 0..<tokens {
      for o in 0..<width {
        var sum = Double(dense.bias[o])
        for tap in 0..<taps where (0..<tokens).contains(t + tap - taps / 2) {
          for i in 0..<perGroup {
            let source = values[(t + tap - taps / 2) * width + o / perGroup * perGroup + i]
            sum += Double(source) * Double(dense[o, i, tap])
          }
        }
        expected.append(Bounded(value: Double(values[t * width + o]) + Dense.gelu(sum), error: 3e-6))
      }
    }
    expectWithin(x.elements, expected)
  }
}
